"""Measures one export: time, peak memory, size of the file and its difference from PyTorch.

    python benchmarks/export_cost.py --json cost.json -- --model bimamba-lora --checkpoint random

What stands after ``--`` goes to ``export/to_onnx.py``, which runs in a process of its own; the file it
writes is verified as always and then deleted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from antispoof.errors import CheckFailed, UserError, one_line, run
from antispoof.manifest import SUFFIX
from antispoof.outputs import refuse_existing
from benchmarks.results_file import gather_conditions, write_results

KIND = "export-cost"
EXPORTER = "export.to_onnx"
MIB = 1 << 20


def measure(flags: list[str], folder: Path) -> dict[str, Any]:
    """Runs the exporter with ``flags`` into ``folder`` and returns what it cost and what it wrote.

    Raises:
        UserError: The exporter did not accept the flags.
        CheckFailed: The file did not score like PyTorch.
    """
    started = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", EXPORTER, *flags, "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - started
    if child.returncode:
        kind = UserError if child.returncode == 2 else CheckFailed
        raise kind(f"the export failed: {one_line(child.stderr)[-300:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest = json.loads(next(folder.glob(f"*{SUFFIX}")).read_text(encoding="utf-8"))
    return {
        "model": manifest["model"],
        "config": manifest["config"],
        "weights": manifest["weights"],
        "bytes": manifest["file"]["bytes"],
        "sha256": manifest["file"]["sha256"],
        "nodes": _nodes(folder / manifest["file"]["name"]),
        "wall_s": round(wall, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss * 1024 / MIB),
        "max_difference": manifest["parity"]["max_difference"],
        "clips": manifest["parity"]["audio"],
    }


def _nodes(path: Path) -> int:
    import onnx

    from export.onnx_file import operations

    return sum(operations(onnx.load(path)).values())


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="export_cost.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")
    parser.add_argument("flags", nargs="*", help="flags of export/to_onnx.py, after --")
    args = parser.parse_args(argv)
    if args.json:
        refuse_existing(args.json, args.force)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(args.flags, Path(folder))
    if args.json:
        write_results(args.json, KIND, gather_conditions(), [row], force=args.force)
    for name in ("model", "bytes", "nodes", "wall_s", "cpu_s", "peak_mib", "max_difference"):
        print(f"{name:<15} {row[name]}")
    return 0


if __name__ == "__main__":
    run(main)
