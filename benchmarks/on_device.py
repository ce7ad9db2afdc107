"""Times a model file on a phone: pushes it with a runner, checks its scores there, then times it.

    python benchmarks/on_device.py android out/aasist-l.onnx
    python benchmarks/on_device.py android out/fscnn.onnx --in-app
    python benchmarks/on_device.py android out/aasist-l.tflite --runner arm64/runner --push libneeded.so
    python benchmarks/on_device.py ios out/aasist-l.mlpackage --app SpoofBench.app --bundle org.example.bench

For ONNX files on Android the runner is android_demo/native/runner, compiled here for the device's processor,
and ONNX Runtime is the demo app's; --push puts another libonnxruntime.so in its place. --in-app has the demo
app, installed with this file inside, measure itself: apps get other cores than what adb starts.

What a runner is called with and must print stands in benchmarks/devices/runs.py. Nothing is timed before the
device gives the golden scores: those beside the file, else those that it gets here. Blocks of runs are
repeated until two in a row agree within 3 %; blocks during which the device was hot do not count. The JSON
says which device it was, its governor, battery, temperature and thermal status before and after, which cores
were used, and the sha256 of everything that was pushed. The folder on the device is removed at the end.

The Android side is tested against a real adbd on loopback, with stand-ins for getprop, dumpsys, am and
Android's linker; it has not run on a phone yet. The iOS side has run nowhere yet: --dry-run prints its
command lines.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import antispoof
from antispoof.errors import EXIT_DONE, UserError, run
from antispoof.formats import format_of
from antispoof.outputs import refuse_existing
from benchmarks.devices import android, android_app, ios
from benchmarks.devices.adb import Device, find_device
from benchmarks.devices.android_runner import runner_for
from benchmarks.devices.runs import KIND
from benchmarks.results_file import write_results

FORMATS = {"android": ("onnx", "tflite"), "ios": ("onnx", "tflite", "coreml")}
ANDROID_FOLDER = "/data/local/tmp"  # the one place where a shell may run programs

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="on_device.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("system", choices=sorted(FORMATS))
    p.add_argument("artifact", type=Path, metavar="ARTIFACT", help="an exported file with its manifest")
    p.add_argument("--serial", metavar="ID", help="which device (default: the only one)")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a run (default 1)")
    p.add_argument("--runs", type=int, default=50, metavar="N", help="runs in a block (default 50)")
    p.add_argument("--blocks", type=int, default=12, metavar="N", help="at most so many (default 12)")
    p.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    p.add_argument("--force", action="store_true", help="overwrite OUT")
    group = p.add_argument_group("android")
    group.add_argument("--in-app", action="store_true", help="have the demo app on the device measure")
    group.add_argument("--runner", type=Path, metavar="FILE", help="program for the device's processor")
    group.add_argument("--push", type=Path, action="append", default=[], metavar="FILE", help="it needs this")
    group.add_argument(
        "--cores", default="big", metavar="WHICH", help="big, little, all or 4-7 (default big)"
    )
    group.add_argument("--folder", default=ANDROID_FOLDER, metavar="DIR", help=f"default {ANDROID_FOLDER}")
    group.add_argument("--time-out", type=float, default=600, metavar="S", help="of a block (default 600)")
    group.add_argument("--cool-down", type=float, default=600, metavar="S", help="most wait (default 600)")
    group = p.add_argument_group("ios")
    group.add_argument("--app", type=Path, metavar="DIR", help="the runner, built and signed")
    group.add_argument("--bundle", metavar="ID", help="its bundle identifier")
    group.add_argument("--dry-run", action="store_true", help="print the command lines and stop")
    return p


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses, before anything is pushed, what cannot end well."""
    if not args.artifact.exists():
        raise UserError(f"{args.artifact}: no such model file")
    name = format_of(args.artifact).name
    if name not in FORMATS[args.system]:
        raise UserError(f"{args.artifact}: {name} files do not run on {args.system}")
    if min(args.threads, args.runs, args.blocks) < 1 or min(args.time_out, args.cool_down) <= 0:
        raise UserError("--threads, --runs and --blocks take at least 1, the waits more than 0 s")
    if args.system == "android":
        check_android(args, name)
    elif args.app is None or args.bundle is None:
        raise UserError("--app and --bundle name the app that runs the model on the phone")
    if args.json:
        refuse_existing(args.json, args.force)


def check_android(args: argparse.Namespace, format_name: str) -> None:
    """Refuses what cannot end well on Android."""
    if args.in_app and (args.runner or args.push):
        raise UserError("--in-app needs no --runner and no --push: the app brings everything")
    if format_name != "onnx" and (args.in_app or args.runner is None):
        raise UserError(
            f"only ONNX files have a runner here; --runner names a program for {format_name} files"
        )
    missing = [file for file in (args.runner, *args.push) if file and not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file to push")
    android.core_mask(args.cores, {})


def say(text: str) -> None:
    """Prints progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def measure(args: argparse.Namespace) -> Row:
    """Returns the figures of the file on the device."""
    if args.system == "ios":
        plan = ios.Plan(args.app, args.bundle, args.serial, args.threads, args.runs, args.blocks)
        return ios.measure(args.artifact, plan, say)
    device = find_device(args.serial)
    if args.in_app:
        wanted = android_app.Plan(args.threads, args.runs, args.blocks, args.time_out)
        return android_app.measure(device, args.artifact, wanted, say)
    return android.measure(device, args.artifact, android_plan(args, device), say)


def android_plan(args: argparse.Namespace, device: Device) -> android.Plan:
    """Returns how the file is run, with the runner for the device where none was named."""
    runner, library = (args.runner, None) if args.runner else runner_for(device)
    pushed = {file.name: file for file in (library, *args.push) if file}
    return android.Plan(
        args.folder,
        runner,
        tuple(pushed.values()),
        args.threads,
        args.cores,
        args.runs,
        args.blocks,
        args.time_out,
        args.cool_down,
    )


def print_plan(args: argparse.Namespace) -> None:
    """Prints the command lines of a measurement on a phone."""
    clips = args.artifact.with_name(args.artifact.name + ".golden.f32")
    arguments = ["--model", args.artifact.name, "--clips", clips.name, "--samples", "64600"]
    arguments += ["--threads", str(args.threads), "--runs", str(args.runs)]
    ios.show(ios.list_command(Path("devices.json")))
    phone = args.serial or "IDENTIFIER"
    for command in ios.commands(phone, args.app, args.bundle, (args.artifact, clips), arguments):
        ios.show(command)


def summary(row: Row) -> str:
    """Returns the figures as a few lines."""
    device, times = row["device"], row["ms"]
    what = " ".join(filter(None, (device.get("manufacturer"), device["model"], device.get("chip"))))
    state = "steady" if row["steady"] else "never steady"
    return (
        f"{what}: {row['file']} with {row['threads']} threads, {row['library']}\n"
        f"p50 {times['p50']:.1f} ms, p90 {times['p90']:.1f} ms, least {times['least']:.1f} ms "
        f"({times['runs']} runs, {state}, {row['blocks']['hot']} blocks too hot)\n"
        f"load {row['load_ms']:.1f} ms, first run {row['first_run_ms']:.1f} ms, "
        f"peak {row['peak_rss_mib']:.0f} MiB\n"
        f"golden scores within {row['golden']['max_difference']:.1e}"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    check_arguments(args)
    if args.system == "ios" and args.dry_run:
        print_plan(args)
        return EXIT_DONE
    row = measure(args)
    if args.json:
        cores = "the app's" if args.in_app else args.cores
        conditions = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "packages": {"antispoof": antispoof.__version__},
            "protocol": {"runs": args.runs, "blocks": args.blocks, "cores": cores},
        }
        write_results(args.json, KIND, conditions, [row], args.force)
    print(summary(row))
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
