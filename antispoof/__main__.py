"""The console command: ``antispoof COMMAND ...`` runs the script of that name.

antispoof                      lists the commands
antispoof score --help         what one of them takes
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple, NoReturn

from antispoof import __version__
from antispoof.errors import EXIT_DONE, UserError, run


class Command(NamedTuple):
    """A command: the module whose ``main`` it is, and what it does."""

    module: str
    help: str


# By name and not by import: the floors above this one stay unknown to it until one is asked for.
COMMANDS = {
    "fit": Command("train.fit", "train a detector on labelled recordings"),
    "distill": Command("train.distill", "train a detector to say what other detectors say"),
    "qat": Command("train.qat", "fine-tune a detector for integers"),
    "prune": Command("train.prune", "take whole channels out of a detector"),
    "clean": Command("train.clean", "drop from a list what an earlier model finds hardest"),
    "phase6": Command("train.phase6", "clean, train, evaluate and draw Phase 6 in one go"),
    "vocode": Command("train.vocode", "make spoofed copies of bona fide speech to train on"),
    "text-to-speech": Command("train.text_to_speech", "make spoofs with espeak-ng or flite"),
    "transfer-set": Command("train.transfer_set", "cut excerpts of recordings for teachers to judge"),
    "train-vocoder": Command("train.neural_vocoder", "train a small vocoder that makes such copies"),
    "card": Command("train.card", "measure a finished run, or shipped weights anew, and write their card"),
    "export-onnx": Command("export.to_onnx", "write a detector as an ONNX file and verify it"),
    "export-onnx-cached": Command("export.to_onnx_cached", "write a detector in two halves, for streams"),
    "export-tflite": Command("export.to_tflite", "write a detector as a TFLite file and verify it"),
    "export-coreml": Command("export.to_coreml", "write a detector as a Core ML package and verify it"),
    "export-all": Command("export.all", "write detectors in every format and compare what came of it"),
    "sign": Command("export.sign", "make keys, sign model files, verify signatures"),
    "embed": Command("export.embed", "put a signed detector into an Android or iOS app or a page"),
    "lint": Command("export.lint", "say what a target will not take of a model file"),
    "mil": Command("runtimes.mil", "examine a Core ML package without a Mac"),
    "quantize-onnx": Command("quantize.onnx_int8", "quantize an exported ONNX file"),
    "quantize-tflite": Command("quantize.tflite_int8", "quantize an exported TFLite file"),
    "quantize-coreml": Command("quantize.coreml_int8", "quantize an exported Core ML package, without a Mac"),
    "sensitivity": Command("quantize.sensitivity", "find the layers that quantization should leave in float"),
    "calibration": Command("quantize.calibration", "choose the clips that ranges are taken from"),
    "parity": Command("benchmarks.parity", "say whether one file may stand in for another"),
    "quantized": Command("benchmarks.quantized", "measure what quantization costs and saves"),
    "score": Command("runtimes.score", "score recordings with a model file"),
    "fit-thresholds": Command("runtimes.fit_thresholds", "fit a model file's thresholds to labelled speech"),
    "stream": Command("runtimes.stream", "listen to a recording or a microphone and decide as it goes"),
    "accuracy": Command("benchmarks.accuracy", "measure a score file: EER, DCFs, Cllr, each attack"),
    "seeds": Command("benchmarks.seeds", "measure a recipe over its seeds, beside other detectors"),
    "training": Command("benchmarks.training", "compare two ways of training over several seeds"),
    "robustness": Command("benchmarks.robustness", "score through codecs, noise, rooms, gains and cuts"),
    "processors": Command("benchmarks.processors", "score model files on emulated processors, to the bit"),
    "latency": Command("benchmarks.latency", "time model files side by side"),
    "bench": Command(
        "benchmarks.bench", "measure one model from end to end: which file to ship where, and why"
    ),
    "peers": Command("benchmarks.peers", "time model files beside other runtimes, with the parity of each"),
    "training-step": Command("benchmarks.training_step", "measure how long a step of training takes"),
    "throughput": Command("benchmarks.throughput", "measure how fast a corpus is scored on every core"),
    "streaming": Command("benchmarks.streaming", "measure what halves save in a stream, and what they lose"),
    "gpu": Command("benchmarks.gpu", "time a model on a GPU, batch 1 to 256"),
    "on-device": Command("benchmarks.on_device", "time a model file on a phone"),
    "cost": Command("benchmarks.cost", "count multiply-adds and bytes by layer; how near is the limit?"),
    "export-cost": Command("benchmarks.export_cost", "measure time and memory of an export"),
    "bimamba-block": Command("benchmarks.bimamba_block", "time one Bi-Mamba block, as published and as here"),
    "scan-limit": Command("benchmarks.scan_limit", "time the forms of the selective scan against one C loop"),
    "report": Command("benchmarks.report", "write the tables of the README from the results"),
}


def usage() -> str:
    """Returns the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: antispoof COMMAND ...", "", *lines, "", "antispoof COMMAND --help says what it takes"]
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code.

    Raises:
        UserError: There is no such command.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return EXIT_DONE
    if name == "--version":
        print(f"antispoof {__version__}")
        return EXIT_DONE
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "antispoof --help lists them"
        raise UserError(f"no command {name!r}; {hint}")
    code: int = importlib.import_module(COMMANDS[name].module).main(rest)
    return code


def console() -> NoReturn:
    """Runs the command as a program and exits with its code."""
    run(main)


if __name__ == "__main__":
    console()
