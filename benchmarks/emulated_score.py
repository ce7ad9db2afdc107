"""Scores clips with a runtime alone, for a Python that has that runtime and NumPy and nothing else.

    python benchmarks/emulated_score.py FILE CLIPS.npy [FILE CLIPS.npy]...

CLIPS.npy holds float32 ``(clips, samples)``. Prints a line of JSON for each FILE: its scores as hexadecimal
floats, which lose no bit, as a list of texts.
"""

import json
import sys
from collections.abc import Callable

import numpy as np

Score = Callable[[np.ndarray], float]


def open_onnx(path: str) -> Score:
    """Returns what scores a clip ``(1, samples)`` with an ONNX file, set as in ``runtimes/ort.py``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda clip: float(session.run(None, {name: clip})[0][0])


def open_tflite(path: str) -> Score:
    """Returns what scores a clip ``(1, samples)`` with a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()

    def score(clip: np.ndarray) -> float:
        interpreter.set_tensor(given["index"], clip)
        interpreter.invoke()
        return float(interpreter.get_tensor(made["index"])[0])

    return score


def main(words: list[str]) -> None:
    """Scores and prints."""
    for path, clips in zip(words[::2], words[1::2], strict=True):
        score = (open_tflite if path.endswith(".tflite") else open_onnx)(path)
        print(json.dumps([score(clip[None]).hex() for clip in np.load(clips)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
