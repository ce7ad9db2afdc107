"""Which WavLM a model starts from: a published one, a folder on disk, or random weights.

large, base-plus                  Microsoft's weights, from the Hugging Face cache or hub
large-random, base-plus-random    the same networks with random weights, for measurements
tiny                              three narrow layers with random weights, for tests
anything else                     a folder in Hugging Face form: config.json and the weights
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antispoof.errors import UserError, one_line
from antispoof.models.layers.wavlm import (
    DEAD_WEIGHTS,
    PUBLIC_NAMES,
    WAVLM_SIZES,
    WavLM,
    WavLMSizes,
    WavLMStream,
)

HUB = {"large": "microsoft/wavlm-large", "base-plus": "microsoft/wavlm-base-plus"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
RANDOM = "-random"

_without_pretrained: ContextVar[bool] = ContextVar("without_pretrained", default=False)


@contextmanager
def without_pretrained() -> Iterator[None]:
    """Builds models without their published WavLM, because a checkpoint follows or none is wanted."""
    token = _without_pretrained.set(True)
    try:
        yield
    finally:
        _without_pretrained.reset(token)


def create_wavlm(wavlm: str, clip_samples: int) -> WavLMStream:
    """Builds the WavLM that ``wavlm`` names (see the module) and loads its weights.

    Nothing is loaded inside `without_pretrained` or on the meta device.

    Raises:
        UserError: There is no such folder, it does not hold a WavLM that is known here, or the
            weights can neither be found on this machine nor downloaded.
    """
    name = wavlm.removesuffix(RANDOM)
    folder = None if name in WAVLM_SIZES else Path(wavlm)
    sizes = WAVLM_SIZES[name] if folder is None else _sizes_in(folder)
    stream = WavLMStream(sizes, clip_samples)
    if _without_pretrained.get() or torch.get_default_device().type == "meta":
        return stream
    if folder is None and wavlm in HUB:
        folder = _from_hub(HUB[wavlm], wavlm)
    if folder is not None:
        _load(stream.model, folder)
    return stream


def _sizes_in(folder: Path) -> WavLMSizes:
    """Returns the sizes of a WavLM on disk; they must be one of `WAVLM_SIZES`, so that they have a name."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = WavLMSizes(
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["intermediate_size"],
            conv_width=config["conv_dim"][0],
            pre_norm=config["do_stable_layer_norm"],
        )
    except OSError as error:
        known = ", ".join([*WAVLM_SIZES, *(name + RANDOM for name in HUB)])
        raise UserError(
            f"there is no WavLM {str(folder)!r}; give {known}, or a folder with config.json"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{folder}/config.json: not the configuration of a WavLM ({one_line(error)})"
        ) from error
    if sizes not in WAVLM_SIZES.values():
        raise UserError(f"{folder}: neither the sizes of WavLM-Large nor of WavLM-Base(+) ({sizes})")
    return sizes


def _from_hub(repository: str, name: str) -> Path:
    """Returns the folder of a published WavLM, downloaded unless it is in the cache."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(
            f"WavLM {name!r} comes from the Hugging Face hub: pip install 'antispoof[ssl]', or give a folder"
        ) from error
    files = ["config.json", *WEIGHT_FILES]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=files, local_files_only=True))
        if any((folder / file).is_file() for file in WEIGHT_FILES):
            return folder
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"WavLM {name!r}: {repository} is not in the Hugging Face cache and cannot be downloaded "
            f"({type(error).__name__}); give a folder that holds it, or {name}{RANDOM} to go without"
        ) from error


def _load(model: WavLM, folder: Path) -> None:
    from antispoof.checkpoint import read_checkpoint  # which imports the models

    found = [folder / file for file in WEIGHT_FILES if (folder / file).is_file()]
    if not found:
        raise UserError(f"{folder}: holds neither {' nor '.join(WEIGHT_FILES)}")
    tensors = own_names(read_checkpoint(found[0]).tensors)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{found[0]}: not the weights of this WavLM ({one_line(error)[:200]})") from error


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a ``transformers`` WavLM, alone or below a task's head, by our names."""
    if any(name.startswith("wavlm.") for name in tensors):
        tensors = {k.removeprefix("wavlm."): v for k, v in tensors.items() if k.startswith("wavlm.")}
    mapped = {}
    for name, tensor in tensors.items():
        if not re.search(DEAD_WEIGHTS, name):
            for pattern, replacement in PUBLIC_NAMES:
                name = re.sub(pattern, replacement, name)
            mapped[name] = tensor
    return mapped
