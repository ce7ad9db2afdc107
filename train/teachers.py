"""What trained networks think of recordings: of the very crops of a batch, or of whole clips, kept on disk.

A cheap teacher hears what the student hears ("consistent" teaching, Beyer et al., arXiv 2106.05237). One that
takes longer than the student hears each recording once, as it is; its opinion goes into a database under the
hash of its weights and that of the recording, so that it is never computed twice and a stop loses nothing.
Where that is still too much, it hears a transfer set only (train/transfer_set.py).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from antispoof.checkpoint import weights_hash
from antispoof.errors import UserError, one_line
from antispoof.models import Detector, DetectorOutput
from antispoof.outputs import make_folder
from train.mixup import Heard
from train.network import load_teacher
from train.scoring import whole_clips

CROPS_AT_ONCE = 8
TABLE = (
    "CREATE TABLE IF NOT EXISTS opinions (teacher TEXT, clip BLOB, said BLOB, PRIMARY KEY (teacher, clip))"
)


class Opinion(NamedTuple):
    """What a teacher says of crops, float32.

    Attributes:
        logits: (batch, 2).
        embedding: (batch, features).
        known: (batch,) 1, or 0 where the teacher was not asked; None: it was asked about all.
        layer: What the part of it that is compared put out, (batch, ...), if there is one.
    """

    logits: Tensor
    embedding: Tensor
    known: Tensor | None = None
    layer: Tensor | None = None


class Listener:
    """Keeps what a part of a network puts out."""

    def __init__(self, model: Detector, layer: str) -> None:
        """Finds the part.

        Raises:
            UserError: The model has none of that name.
        """
        modules = dict(model.named_modules())
        if layer not in modules:
            parts = ", ".join(name for name, _ in model.named_children())
            raise UserError(
                f"distill.layer: {model.name} has no part {layer!r}; there are {parts}, and theirs"
            )
        self._heard: Tensor | None = None
        modules[layer].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._heard = output

    def take(self) -> Tensor:
        """Returns what was put out last, once."""
        assert self._heard is not None
        heard, self._heard = self._heard, None
        return heard


class Teacher:
    """A trained network that is asked about crops.

    Attributes:
        key: Tells its weights, and how it is asked, from all others.
        features: Length of its embedding.
        hears_crops: Whether it hears what the student hears.
    """

    key: str
    features: int
    hears_crops: bool

    def hears(self, heard: Heard) -> Callable[[Tensor], Opinion]:
        """Returns its opinion as a function of ``clips (batch,)``, the numbers of the recordings."""
        raise NotImplementedError


class CropTeacher(Teacher):
    """Hears what the student hears, augmentation and mixture included."""

    hears_crops = True

    def __init__(self, path: Path, crop_samples: int, device: torch.device, layer: str = "") -> None:
        """Loads a checkpoint.

        Args:
            path: The checkpoint.
            crop_samples: Length of what it hears.
            device: Where it is computed.
            layer: The part of it that students are compared with, if any.
        """
        self._model = load_teacher(path, crop_samples).to(device)
        self.key = f"crops:{weights_hash(self._model)}"
        self.features = features_of(self._model)
        self._listener = Listener(self._model, layer) if layer else None

    @torch.no_grad()
    def hears(self, heard: Heard) -> Callable[[Tensor], Opinion]:
        """Returns its opinion of the crops, whatever recordings they are of."""
        parts, layers = [], []
        for crops in heard.waveforms.split(CROPS_AT_ONCE):
            parts.append(self._model(crops))
            if self._listener:
                layers.append(self._listener.take())
        logits, embedding = (torch.cat(tensors).float() for tensors in zip(*parts, strict=True))
        opinion = Opinion(logits, embedding, layer=torch.cat(layers) if layers else None)
        return lambda _clips: opinion


def features_of(model: Detector) -> int:
    """Returns the length of a network's embedding."""
    with torch.no_grad():
        return int(model(model.example_input().to(device_of(model))).embedding.shape[1])


def device_of(model: Detector) -> torch.device:
    """Returns where a network is computed."""
    return next(model.parameters()).device


class ClipTeacher(Teacher):
    """Has heard recordings as a whole, each once."""

    hears_crops = False

    def __init__(self, path: Path, device: torch.device, samples: int | None = None) -> None:
        """Loads a checkpoint, which has heard nothing yet.

        Args:
            path: The checkpoint.
            device: Where it is computed.
            samples: To what length it hears clips cut or repeated, if not to that of its own clip.
        """
        self._model = load_teacher(path, samples).to(device)
        self.key = f"clips:{weights_hash(self._model)}" + (f":{samples}" if samples else "")
        self.features = features_of(self._model)

    def ask(
        self,
        clips: Sequence[np.ndarray],
        cache: Path,
        watch: Callable[[Sequence[int]], Iterable[int]],
        asked: Sequence[int] | None = None,
    ) -> None:
        """Looks up what it said of each clip, and asks it, once and for all, about the rest.

        Args:
            clips: Recordings, int16.
            cache: Folder of the database.
            watch: Wraps numbers of clips to show the progress.
            asked: Which recordings it is asked about; all if not given.

        Raises:
            UserError: What it says cannot be kept.
        """
        model, device = self._model, device_of(self._model)
        del self._model  # a large one is needed no more
        which = list(range(len(clips)) if asked is None else asked)
        make_folder(cache)
        kept = cache / "opinions.sqlite"
        try:
            with closing(sqlite3.connect(kept, timeout=60)) as database:
                database.execute(TABLE)
                said = np.stack(_ask_all(model, self.key, [clips[index] for index in which], database, watch))
        except sqlite3.Error as error:  # a full disk, or a file that something else wrote
            raise UserError(f"cannot keep opinions in {kept}: {one_line(error)}") from error
        self._said = torch.zeros(len(clips), said.shape[1], device=device)
        self._said[which] = torch.from_numpy(said).to(device)
        self._known = torch.zeros(len(clips), device=device)
        self._known[which] = 1

    def hears(self, heard: Heard) -> Callable[[Tensor], Opinion]:
        """Returns what it said of the recordings."""
        return lambda clips: Opinion(self._said[clips, :2], self._said[clips, 2:], self._known[clips])


def _ask_all(
    model: Detector,
    key: str,
    clips: Sequence[np.ndarray],
    database: sqlite3.Connection,
    watch: Callable[[Sequence[int]], Iterable[int]],
) -> list[np.ndarray]:
    """Returns logits and embedding of each clip as one vector."""
    names = [hashlib.sha256(clip.tobytes()).digest() for clip in clips]
    known = dict(database.execute("SELECT clip, said FROM opinions WHERE teacher = ?", (key,)))
    missing = [index for index, name in enumerate(names) if name not in known]
    for index in watch(missing):  # one clip at a time: on a CPU, AASIST-L is faster so
        [waveform] = whole_clips([clips[index]], model.clip_samples)
        vector = _said(model, waveform)[0].astype("<f4").tobytes()
        known[names[index]] = vector
        database.execute("REPLACE INTO opinions VALUES (?, ?, ?)", (key, names[index], vector))
        database.commit()
    return [np.frombuffer(known[name], "<f4").astype(np.float32) for name in names]


def _said(model: Detector, waveforms: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output: DetectorOutput = model(torch.from_numpy(waveforms).to(device_of(model)))
    return torch.cat([output.logits, output.embedding], dim=1).float().cpu().numpy()
