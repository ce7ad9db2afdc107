"""The detectors. Importing this package registers all of them."""

from antispoof.models import aasist as aasist
from antispoof.models import bimamba as bimamba
from antispoof.models import fscnn as fscnn
from antispoof.models import moe_mamba as moe_mamba
from antispoof.models import se_mamba as se_mamba
from antispoof.models.detector import BONAFIDE, LABELS, SPOOF, Config, Detector, DetectorOutput, freeze
from antispoof.models.registry import create_model, model_names, model_summary, register, small_config

__all__ = [
    "BONAFIDE",
    "LABELS",
    "SPOOF",
    "Config",
    "Detector",
    "DetectorOutput",
    "create_model",
    "freeze",
    "model_names",
    "model_summary",
    "register",
    "small_config",
]
