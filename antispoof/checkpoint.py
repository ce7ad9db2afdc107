"""Weights on disk: read without running anything in them, mapped by name, loaded strictly.

A checkpoint is untrusted. Only safetensors and ``torch.load(weights_only=True)`` are used, every
weight must be finite and of the shape the model has, and every name must be accounted for
(`antispoof.weight_names`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from antispoof.errors import UserError, one_line
from antispoof.formats import format_named
from antispoof.models import Detector, create_model, model_names
from antispoof.models.layers.wavlm_pretrained import without_pretrained
from antispoof.outputs import write_whole
from antispoof.weight_names import Fit, fit

SUFFIXES = format_named("torch").suffixes
# Where trainers put the weights among optimiser state, epoch numbers and the like.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema_state_dict", "ema")
# Where trainers put the state of the loss, which for OC-Softmax holds a centre that the score needs.
LOSSES = ("criterion", "criterion_state_dict", "loss", "loss_state_dict")
CENTRE = "center"
NEAR = 0.5  # share of a model's names from which on a message says what is missing or too much
# What research code leaves beside weights: measures, arguments, paths. Nobody asks for them here, so an empty
# object takes the place of each, and no code of these modules runs.
UNREAD = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(
        f"pathlib.{module}{name}"
        for module in ("", "_local.")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
)
# Far beyond any network here (750 weights with WavLM-Large): each is held against patterns of names.
MOST_WEIGHTS, LONGEST_NAME = 5_000, 300
# What weights are read from. Files may hold 8-bit floats and complex numbers too, which no network here has.
STORED = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file under its own names, and what the file says of itself."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


class Unread:
    """Stands for an object of a pickle that is not weights: takes whatever is said of it, keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> Unread:
        """Returns an empty object, whatever it is made from."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Forgets the state."""


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the weights of a checkpoint file.

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, wants to run code, holds no
            weights, or holds weights that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: a checkpoint ends in one of {', '.join(SUFFIXES)}")
    _refuse_lookalikes(path)
    metadata: dict[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        content, metadata = _read_safetensors(path)
    else:
        content = _read_pickle(path)
    try:
        tensors = _find_weights(content, path)
    except RecursionError:
        raise UserError(f"{path}: holds itself, and no weights") from None
    if len(tensors) > MOST_WEIGHTS or any(len(name) > LONGEST_NAME for name in tensors):
        raise UserError(f"{path}: names more weights, or longer, than any network here by far")
    for name, tensor in tensors.items():
        _check_numbers(tensor, f"{path}: the weights {name!r}")
    return Checkpoint(path, tensors, metadata)


def _check_numbers(tensor: Tensor, name: str) -> None:
    """Refuses what is no plain array of finite numbers; ``name`` starts the message."""
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta)
    if not plain or tensor.dtype not in STORED:
        kind = str(tensor.dtype if plain or tensor.is_quantized else tensor.layout).removeprefix("torch.")
        raise UserError(f"{name} are stored as {'nothing' if tensor.is_meta else kind}; save them in float32")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{name} claim more numbers than the file holds")
    if not bool(torch.isfinite(tensor.float()).all()):
        raise UserError(f"{name} hold NaN or infinite values, or some beyond float32")


def _refuse_lookalikes(path: Path) -> None:
    """Names the files that people save as checkpoints by mistake."""
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        raise UserError(f"{path}: the file is empty")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: this is a web page, not a checkpoint; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: this is a Git LFS pointer, not the checkpoint; run `git lfs pull`")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({one_line(error)})") from error


def _read_pickle(path: Path) -> Any:
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(Unread, name) for name in UNREAD]),
        ):
            warnings.simplefilter("ignore")  # about the pickle's age, no concern of the user's
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|type) ([\w.]+)", str(error))
        if wanted:
            raise UserError(
                f"{path}: refused, loading it would run code ({wanted[1]}); ask its author for plain "
                "weights, as safetensors or a state_dict"
            ) from error
        raise UserError(f"{path}: not a PyTorch checkpoint, or a damaged one") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise UserError(f"{path}: not a PyTorch checkpoint, or a damaged one ({_brief(error)})") from error


def _brief(error: Exception) -> str:
    return one_line(error)[:120] or type(error).__name__


def _find_weights(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the one mapping of names to tensors in ``content``, out of what trainers wrap around it."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state_dict of named weights")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    wrapped = [k for k in WRAPPERS if isinstance(content.get(k), Mapping)]
    if len(wrapped) > 1:
        raise UserError(
            f"{path}: holds several sets of weights ({', '.join(wrapped)}); save the one you mean"
        )
    if wrapped:
        return {**_find_weights(content[wrapped[0]], path), **_loss_centre(content)}
    if not tensors or len(tensors) != len(content):
        others = [str(k) for k in content if k not in tensors]
        raise UserError(
            f"{path}: not a state_dict of named weights (it holds {', '.join(others[:5]) or 'nothing'})"
        )
    return tensors


def _loss_centre(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the centre of an OC-Softmax that lies beside the network's weights, if there is one."""
    for place in (content, *(content.get(key) for key in LOSSES)):
        if isinstance(place, Mapping) and isinstance(place.get(CENTRE), Tensor):
            return {f"loss.{CENTRE}": place[CENTRE]}
    return {}


def load_weights(model: Detector, checkpoint: Checkpoint) -> None:
    """Loads a checkpoint into a model, every weight accounted for.

    Raises:
        UserError: A weight is missing, unknown or of another shape.
    """
    found = fit(model, checkpoint.tensors)
    if found.problem:
        raise UserError(f"{checkpoint.path}: not a checkpoint of {model.name}: it {found.problem}")
    model.load_state_dict(found.tensors)


def recognise(checkpoint: Checkpoint) -> str:
    """Returns the name of the one registered model whose weights these are.

    Raises:
        UserError: No model, in its default configuration, has exactly these names and shapes.
    """
    nearest, found = "", Fit({}, "", 0.0)
    for name in model_names():
        with torch.device("meta"):
            model = create_model(name)
        this = fit(model, checkpoint.tensors)
        if not this.problem:
            return name
        if this.share > found.share:
            nearest, found = name, this
    if found.share < NEAR:
        raise UserError(
            f"{checkpoint.path}: the weights are of none of the models {', '.join(model_names())} "
            "in their default configuration; name it with --model"
        )
    raise UserError(
        f"{checkpoint.path}: the weights are of none of the models in their default configuration; "
        f"nearest is {nearest}, but the file {found.problem}"
    )


def load_model(path: str | os.PathLike[str], name: str | None = None, /, **overrides: Any) -> Detector:
    """Returns the model of a checkpoint file, in eval mode.

    Args:
        path: A checkpoint of this project, which knows its model, or a public one.
        name: The model's name, where the file does not say and its shapes do not tell.
        **overrides: Configuration of the model, on top of what the file says.

    Raises:
        UserError: As `read_checkpoint` and `restore`.
    """
    return restore(read_checkpoint(path), name, **overrides)


def restore(checkpoint: Checkpoint, name: str | None = None, /, **overrides: Any) -> Detector:
    """Returns the model of a checkpoint that was read; see `load_model`.

    Raises:
        UserError: As `load_weights`; or ``name`` is not what the file says.
    """
    said = checkpoint.metadata.get("model")
    if said and name and said != name:
        raise UserError(f"{checkpoint.path}: holds the weights of {said}, not of {name}")
    config = _stored_config(checkpoint) if said else {}
    with without_pretrained():
        model = create_model(name or said or recognise(checkpoint), **{**config, **overrides})
    load_weights(model, checkpoint)
    return model.eval()


def _stored_config(checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        config = json.loads(checkpoint.metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{checkpoint.path}: its metadata names a configuration that is not a JSON object")
    return {str(key): tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def save_checkpoint(model: Detector, path: str | os.PathLike[str], **facts: str) -> None:
    """Writes a model's weights as safetensors, whole or not at all.

    Args:
        model: The model; its name and configuration go into the file's metadata.
        path: Where to, ending in ``.safetensors``; replaced if it exists.
        **facts: More metadata, such as the licence of the weights.
    """
    path = Path(path)
    metadata = {"model": model.name, "config": json.dumps(model.overrides, sort_keys=True), **facts}
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    write_whole(path, _in_order(safetensors.torch.save(tensors, metadata)))


def _in_order(content: bytes) -> bytes:
    """Returns a safetensors file with its header sorted, so that equal weights are equal bytes."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the data that follow are aligned
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def weights_hash(model: Detector) -> str:
    """Returns the sha256 of a model's weights, the same however and wherever they were stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
