"""Which models there are, and where: for commands that name models without importing PyTorch for it."""

from __future__ import annotations

MODULES = {
    "aasist": "antispoof.models.aasist",
    "aasist-l": "antispoof.models.aasist",
    "bimamba-lora": "antispoof.models.bimamba",
    "bimamba-sinc": "antispoof.models.bimamba",
    "fscnn": "antispoof.models.fscnn",
    "moe-mamba": "antispoof.models.moe_mamba",
    "se-mamba": "antispoof.models.se_mamba",
}


def model_names() -> list[str]:
    """Returns the names of all models, sorted."""
    return sorted(MODULES)
