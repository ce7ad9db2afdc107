"""Renders results files as tables in Markdown, each kind in its own way; here those of time and size."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.pages.detection_tables import accuracy, parity, quantized, robustness, seeds, training
from benchmarks.pages.table_parts import Row, measured_on, points, table, three_digits


def latency(document: Row) -> str:
    """Renders the rows of ``benchmarks/latency.py``."""
    single = all(row["threads"] == 1 for row in document["rows"])
    rows = []
    for row in document["rows"]:
        name = row["label"] + ("" if row["threads"] == 1 else f", {row['threads']} threads")
        if "failed" in row:
            rows.append([name, "", "", "", "", row["failed"]])
            continue
        by = row["judged_by"]
        ratio = row["ratio"][by]["estimate"] if "ratio" in row else 1.0
        memory = row["memory_mib"]["peak"]
        rows.append(
            [
                name,
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{three_digits(row[f'{by}_ms']['p50'])} ms",
                three_digits(ratio),
                "" if memory is None else f"{memory:.0f} MiB",
                row.get("verdict", "base"),
            ]
        )
    time = "processor time per clip" if single else "time per clip"
    about = "One thread" if single else "One thread: processor time; more: by the clock"
    header = ["file", "size", f"{time}, median", "ratio", "peak memory", "verdict"]
    return table(header, rows) + f"\n\n{about}, interleaved. {measured_on(document)}"


def peers(document: Row) -> str:
    """Renders ``benchmarks/peers.py``: parity beside latency, and why a peer has no figures."""
    rows = []
    for row in document["rows"]:
        parity = row["parity"]
        close = f"{parity['max']:.0e}" if parity else ""
        if "failed" in row:
            rows.append([row["label"], row["about"], "", "", "", "", close, row["failed"]])
            continue
        by = row["judged_by"]
        ratio = row["ratio"][by]["estimate"] if "ratio" in row else 1.0
        memory = row["memory_mib"]["peak"]
        rows.append(
            [
                row["label"],
                row["about"],
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{three_digits(row[f'{by}_ms']['p50'])} ms",
                three_digits(ratio),
                "" if memory is None else f"{memory:.0f} MiB",
                close,
                row.get("verdict", "base"),
            ]
        )
    header = ["file", "what it is", "size", "time per clip, median", "ratio", "peak memory"]
    conditions = document["conditions"]
    clips = max(row["parity"]["clips"] for row in document["rows"] if row["parity"])
    about = (
        f"{conditions['network']}, weights {conditions['weights']}. Threads: {conditions['threads'][0]}; "
        f"interleaved. Largest difference from PyTorch over {clips} clips ({conditions['clips']})."
    )
    return table([*header, "largest difference", "verdict"], rows) + f"\n\n{about} {measured_on(document)}"


def throughput(document: Row) -> str:
    """Renders ``benchmarks/throughput.py``."""
    rows = [
        [
            row["label"],
            str(row["workers"]),
            f"{row['clips_per_s']['bare']:.1f}",
            f"{row['clips_per_s']['whole']:.1f}",
            *(
                "{estimate:.1%} ({low:.1%} to {high:.1%})".format(**row["share"][at])
                for at in ("wall", "cpu")
            ),
        ]
        for row in document["rows"]
    ]
    header = ["file", "workers", "runtime alone, clips/s", "files, clips/s"]
    header += ["share by the clock", "share by processor time"]
    corpus = document["conditions"]["corpus"]
    return table(header, rows) + f"\n\n{corpus}. {measured_on(document)}"


def training_step(document: Row) -> str:
    """Renders ``benchmarks/training_step.py``."""
    rows = [
        [
            row["recipe"],
            row["precision"],
            f"{row['crops']} of {row['crop_s']:g} s",
            f"{row['batch_ms']:.0f} ms",
            f"{row['step_ms']:.0f} ms",
            "{estimate:.0%} ({low:.0%} to {high:.0%})".format(**row["batch_share"]),
            f"{row['steps'] * (row['batch_ms'] + row['step_ms']) / 3.6e6:.1f} h",
        ]
        for row in document["rows"]
    ]
    header = [
        "recipe",
        "precision",
        "crops",
        "making a batch",
        "learning from it",
        "ratio",
        "all of its steps, one core",
    ]
    return table(header, rows) + f"\n\nProcessor time. {measured_on(document)}"


def scan_limit(document: Row) -> str:
    """Renders ``benchmarks/scan_limit.py``: each form's multiple of the C kernel's time, by shape."""
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in document["rows"]))
    names = list(dict.fromkeys(row["candidate"] for row in document["rows"]))
    ratios = {(row["candidate"], tuple(row["shape"])): row["ratio"] for row in document["rows"]}
    rows = [
        [name, *(f"{ratios[name, shape]:.1f}" if (name, shape) in ratios else "" for shape in shapes)]
        for name in names
    ]
    header = ["form", *(", ".join(map(str, shape)) for shape in shapes)]
    about = "Batch, length, channels; 16 states, one thread."
    return table(header, rows) + f"\n\n{about} {measured_on(document)}"


def processors(document: Row) -> str:
    """Renders ``benchmarks/processors.py``: a row for each file, a column for each processor."""
    names = [row["name"] for row in document["conditions"]["processors"]]
    found = {(row["file"], row["processor"]): row for row in document["rows"]}
    files = list(dict.fromkeys(row["file"] for row in document["rows"]))
    rows = [
        [
            f"`{file}`",
            *(
                f"{row['largest_difference']:.2g}" if row["differing"] else "the same"
                for row in (found[file, name] for name in names)
            ),
        ]
        for file in files
    ]
    about = f"Largest difference from this machine's scores of {document['conditions']['corpus']}, emulated."
    return table(["file", *names], rows) + f"\n\n{about} {measured_on(document)}"


def bimamba_block(document: Row) -> str:
    """Renders ``benchmarks/bimamba_block.py``."""
    rows = [
        [
            row["variant"],
            f"{row['p50_ms']:.2f} ms",
            f"{row['times_as_fast']:.2f}",
            f"{row['bytes'] / 1024:.0f} KiB",
        ]
        for row in document["rows"]
    ]
    header = ["Bi-Mamba block", "median", "times as fast", "size"]
    return table(header, rows) + f"\n\nOne thread. {measured_on(document)}"


def export_cost(document: Row) -> str:
    """Renders ``benchmarks/export_cost.py``."""
    rows = [
        [
            f"{row['model']}, WavLM {row['config'].get('wavlm', 'none')}",
            f"{row['bytes'] / 2**20:.0f} MiB",
            str(row["nodes"]),
            f"{row['cpu_s']:.0f} s",
            f"{row['peak_mib'] / 1024:.1f} GiB",
            f"{row['max_difference']:.0e}",
        ]
        for row in document["rows"]
    ]
    header = ["model", "size", "nodes", "processor time", "peak memory", "largest difference"]
    return table(header, rows) + f"\n\n{measured_on(document)}"


def streaming(document: Row) -> str:
    """Renders ``benchmarks/streaming.py``: a row for each way of the halves."""
    rows = []
    for row in document["rows"]:
        differences = [row["agreement"][f"{name}_difference"] for name in ("median", "p95", "max")]
        rows.append(
            [
                row["label"],
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{row['hop_share']:.1%}",
                *(f"{row['time'][way]['ratio']['cpu']['estimate']:.1%}" for way in ("row", "single")),
                " / ".join(f"{value:.2g}" for value in differences),
                points(row["eer_difference"]),
                str(row["flipped"]),
            ]
        )
    header = ["halves", "size", "hop, of a window", "cost of it in a row", "one at a time"]
    header += ["score differs by: median / p95 / most", "EER, change in points, 95 % interval", "flipped"]
    conditions = document["conditions"]
    about = (
        "Cost as a share of the processor time of a whole window, {row:.3g} ms in a row of {windows} and "
        "{single:.3g} ms one at a time, between others'. {clips} clips, each after another; one thread."
    ).format(**conditions["whole_cpu_ms"], **conditions)
    return table(header, rows) + f"\n\n{about} {measured_on(document)}"


def on_device(document: Row) -> str:
    """Renders what ``benchmarks/on_device.py``, the app or the page (``web_demo/``) measured on a device."""
    rows = []
    for row in document["rows"]:
        device, times, golden = row["device"], row["ms"], row["golden"]
        named = (device.get("manufacturer"), device["model"], device.get("chip"))
        figures = (times["p50"], times["p90"], times["least"], row["first_run_ms"], row["load_ms"])
        rows.append(
            [
                " ".join(filter(None, named)),
                row["file"],
                ", ".join(filter(None, (row["library"], row.get("runtime"), row.get("where")))),
                str(row["threads"]),
                *("" if value is None else f"{three_digits(value)} ms" for value in figures),
                f"{golden['max_difference']:.0e}" if golden else "",
                "" if row["steady"] else "never steady",
            ]
        )
    header = ["device", "file", "runtime", "threads", "median", "p90", "least", "first run", "load"]
    conditions = document["conditions"]
    where = "In a browser, by the page's own clock. " if _in_browser(document) else ""
    return table([*header, "largest difference", ""], rows) + f"\n\n{where}{conditions['date'][:10]}."


def _in_browser(document: Row) -> bool:
    return bool(document["conditions"].get("protocol", {}).get("where") == "browser")


RENDERERS: dict[str, Callable[[Row], str]] = {
    "latency": latency,
    "peers": peers,
    "bench": latency,
    "throughput": throughput,
    "training-step": training_step,
    "processors": processors,
    "scan-limit": scan_limit,
    "bimamba-block": bimamba_block,
    "export-cost": export_cost,
    "robustness": robustness,
    "accuracy": accuracy,
    "parity": parity,
    "quantized": quantized,
    "streaming": streaming,
    "training": training,
    "seeds": seeds,
    "on-device": on_device,
}
