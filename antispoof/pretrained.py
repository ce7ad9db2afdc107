"""Where a model's weights come from: bundled, the authors', a file of the user's, or chance."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from antispoof.checkpoint import Checkpoint, load_model, load_weights, read_checkpoint
from antispoof.errors import UserError
from antispoof.manifest import UNTRAINED, Calibration, Threshold
from antispoof.manifest_reader import parse_decisions
from antispoof.models import Detector, create_model
from antispoof.models.layers.wavlm_pretrained import without_pretrained
from antispoof.outputs import cache_folder, make_folder, write_whole

DEFAULT_MODEL = "fscnn"
BUNDLED = Path(__file__).resolve().parent / "checkpoints"
FOR_INTEGERS = "-qat"  # ends the name of a bundled checkpoint that was fine-tuned for integers
RANDOM_SEED = 0
DOWNLOAD_SECONDS = 30
MAX_DOWNLOAD_BYTES = 64 << 20


@dataclass(frozen=True)
class Download:
    """A public file that is always these bytes, or refused."""

    url: str
    sha256: str
    licence: str


_AASIST = "https://raw.githubusercontent.com/clovaai/aasist/a04c9863f63d44471dde8a6abcb3b082b07cd1d1/models/weights/"
OFFICIAL = {
    "aasist": Download(
        _AASIST + "AASIST.pth",
        "51d2d9cf0738172f61e2a384ec50a54a55363240f67c971ed55a92435bc1a1c0",
        "MIT, NAVER Corp.",
    ),
    "aasist-l": Download(
        _AASIST + "AASIST-L.pth",
        "814331d088032bb4c3fa61cc014789eadeed464209dd094ab3a2dd6ffbdce27a",
        "MIT, NAVER Corp.",
    ),
}


@dataclass(frozen=True)
class Weights:
    """A detector with its weights, and what is known of where they come from."""

    detector: Detector
    source: str
    licence: str
    calibration: Calibration | None = None  # fitted to these weights' scores in float32, as are these
    thresholds: tuple[Threshold, ...] = ()


def bundled_path(model: str, *, for_integers: bool = False) -> Path | None:
    """Returns the checkpoint of ``model`` that ships with this package, or None.

    Args:
        model: Its name.
        for_integers: The one that train/qat.py fine-tuned.
    """
    path = BUNDLED / f"{model}{FOR_INTEGERS if for_integers else ''}.safetensors"
    return path if path.is_file() else None


def load_pretrained(checkpoint: str | None = None, model: str | None = None, /, **overrides: Any) -> Weights:
    """Returns a detector with weights, in eval mode.

    Args:
        checkpoint: A checkpoint file; ``official`` for the authors' published weights (downloaded
            once); ``random`` for seeded random weights, to try an architecture out; None for the
            weights that ship with this package, and ``qat`` for those of them that were fine-tuned
            to be quantized.
        model: The model's name. Not needed for a checkpoint file that tells; `DEFAULT_MODEL`
            where nothing else says.
        **overrides: Configuration of the model.

    Raises:
        UserError: There are no such weights, they cannot be had, or they do not fit the model.
    """
    if checkpoint not in (None, "official", "random", "qat"):
        detector = load_model(checkpoint, model, **overrides)
        content = read_checkpoint(checkpoint)
        licence = content.metadata.get("licence", "not stated")
        return Weights(detector, Path(checkpoint).name, licence, *decisions_of(content))
    model = model or DEFAULT_MODEL
    if checkpoint == "random":
        torch.manual_seed(RANDOM_SEED)
    with without_pretrained():  # all weights follow, or none are wanted
        detector = create_model(model, **overrides).eval()
    if checkpoint == "random":
        return Weights(detector, f"{UNTRAINED}{RANDOM_SEED}", "none needed")
    if checkpoint == "official":
        download = OFFICIAL.get(model)
        if download is None:
            raise UserError(
                f"no official weights of {model} are known; there are some of {', '.join(sorted(OFFICIAL))}"
            )
        load_weights(detector, read_checkpoint(fetch(download)))
        return Weights(detector, download.url, download.licence)
    path = bundled_path(model, for_integers=checkpoint == "qat")
    if path is None:
        which = "fine-tuned for integers " if checkpoint == "qat" else ""
        raise UserError(
            f"no weights of {model} {which}ship with this package; give --checkpoint FILE, official or random"
        )
    content = read_checkpoint(path)
    load_weights(detector, content)
    licence = content.metadata.get("licence", "MIT")
    return Weights(detector, f"bundled {path.name}", licence, *decisions_of(content))


def decisions_of(checkpoint: Checkpoint) -> tuple[Calibration | None, tuple[Threshold, ...]]:
    """Returns what train/card.py fitted to the weights' scores, if it did.

    Raises:
        UserError: It is damaged.
    """
    if "decisions" not in checkpoint.metadata:
        return None, ()
    return parse_decisions(checkpoint.metadata["decisions"], str(checkpoint.path))


def fetch(download: Download) -> Path:
    """Returns the cached copy of a download, fetching it if there is none that is right.

    Raises:
        UserError: It cannot be fetched, or is not the file that it should be.
    """
    target = cache_folder() / f"{download.sha256[:16]}-{download.url.rpartition('/')[2]}"
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == download.sha256:
        return target
    try:
        with urllib.request.urlopen(download.url, timeout=DOWNLOAD_SECONDS) as response:
            content = response.read(MAX_DOWNLOAD_BYTES)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"could not download {download.url} ({reason}); fetch it elsewhere and give its path"
        ) from error
    if hashlib.sha256(content).hexdigest() != download.sha256:
        raise UserError(
            f"{download.url} is no longer the file it was: its sha256 differs, so it was not used"
        )
    make_folder(target.parent)
    write_whole(target, content)
    return target
