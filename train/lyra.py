"""Copies by the speech codec Lyra V2, whose decoder is a generative network (SoundStream, arXiv 2107.03312).

Its encoder, quantizer and decoder are three TFLite files, which https://github.com/google/lyra (Apache 2.0)
has in its folder ``lyra/model_coeffs``. They hear 20 ms at a time and keep what came before in variables.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from antispoof.errors import UserError
from runtimes.litert import open_interpreter
from train.resynthesis import Resynthesis
from train.vocoder_program import laid_over

ENCODER, QUANTIZER, DECODER = "soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite"
FRAME = 320  # samples at 16 kHz
FEATURES = 64  # of a frame
MOST_QUANTIZERS = 46
# Of 4 bits in each of 50 frames a second: 9.2, 6 and 3.2 kbit/s; with none, nothing is rounded.
QUANTIZERS = (0, MOST_QUANTIZERS, 30, 16)


@lru_cache(maxsize=2)
def load_lyra(folder: Path) -> Resynthesis:
    """Returns a way of copying at 16 kHz, at a bit rate that is drawn for each copy.

    Raises:
        UserError: A file is missing or is not what Lyra V2 has under that name.
    """
    codec = Lyra(folder)
    return laid_over(lambda waveform, generator: codec.copy(waveform, int(generator.choice(QUANTIZERS))))


class Lyra:
    """The codec, its three graphs opened."""

    def __init__(self, folder: Path) -> None:
        """Opens the graphs of a folder."""
        self._encoder, self._quantizer, self._decoder = (
            _open(folder / name) for name in (ENCODER, QUANTIZER, DECODER)
        )
        self._encode = _signature(self._encoder, folder / ENCODER, None, "input_audio")
        self._decode = _signature(self._decoder, folder / DECODER, None, "input_audio")
        self._quantize = _signature(self._quantizer, folder / QUANTIZER, "encode", "input_frames")
        self._restore = _signature(self._quantizer, folder / QUANTIZER, "decode", "encoding_indices")

    def copy(self, waveform: np.ndarray, quantizers: int) -> np.ndarray:
        """Returns what the decoder makes of ``waveform (samples,)`` at 16 kHz, filled up to whole frames.

        Args:
            waveform: float32, full scale at one.
            quantizers: How many of the `MOST_QUANTIZERS` are used; 0 rounds nothing.
        """
        self._encoder.reset_all_variables()
        self._decoder.reset_all_variables()
        frames = np.pad(waveform, (0, -len(waveform) % FRAME)).astype(np.float32).reshape(-1, 1, FRAME)
        return np.concatenate([self._frame(frame, quantizers) for frame in frames])

    def _frame(self, frame: np.ndarray, quantizers: int) -> np.ndarray:
        features = self._encode(input_audio=frame)["output_0"]
        if quantizers:
            code = self._quantize(input_frames=features, num_quantizers=np.int32(quantizers))["output_0"]
            indices = np.full((MOST_QUANTIZERS, 1, 1), -1, np.int32)  # -1: this one was not sent
            indices[:quantizers, 0, 0] = code.reshape(-1)[:quantizers]
            features = self._restore(encoding_indices=indices)["output_0"].reshape(1, 1, FEATURES)
        made: np.ndarray = self._decode(input_audio=features)["output_0"]
        return made.reshape(-1)


def _open(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        return open_interpreter(content, threads=1)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _signature(interpreter: Any, path: Path, name: str | None, given: str) -> Any:
    """Returns the function of a graph that takes ``given``; the only one where it has no name."""
    signatures = interpreter.get_signature_list()
    name = name or next(iter(signatures), "")
    if given not in signatures.get(name, {}).get("inputs", []):
        raise UserError(f"{path} is not what Lyra V2 has under that name: it takes no {given}")
    return interpreter.get_signature_runner(name)
