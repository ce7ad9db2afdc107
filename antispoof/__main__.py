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
    "card": Command("train.card", "measure a finished run and write what is shipped of it"),
    "export-onnx": Command("export.to_onnx", "write a detector as an ONNX file and verify it"),
    "export-tflite": Command("export.to_tflite", "write a detector as a TFLite file and verify it"),
    "export-coreml": Command("export.to_coreml", "write a detector as a Core ML package and verify it"),
    "mil": Command("runtimes.mil", "examine a Core ML package without a Mac"),
    "quantize-onnx": Command("quantize.onnx_int8", "quantize an exported ONNX file"),
    "calibration": Command("quantize.calibration", "choose the clips that ranges are taken from"),
    "parity": Command("benchmarks.parity", "say whether one file may stand in for another"),
    "score": Command("runtimes.score", "score recordings with a model file"),
    "accuracy": Command("benchmarks.accuracy", "measure a score file: EER, DCFs, Cllr, each attack"),
    "latency": Command("benchmarks.latency", "time model files side by side"),
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
