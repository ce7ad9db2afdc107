"""Renders results files as tables in Markdown, each kind in its own way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def three_digits(value: float) -> str:
    """Returns a number as shortly as its size allows: 117, 1.48, 0.66, 0.013."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table whose columns after the first are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _conditions(document: Row) -> str:
    """Returns the line that says where and with what a table was measured."""
    conditions = document["conditions"]
    cpu, packages = conditions["cpu"], conditions["packages"]
    shown = ("torch", "onnxruntime", "ai-edge-litert", "openvino", "nncf", "executorch", "mnn")
    versions = ", ".join(f"{name} {packages[name]}" for name in shown if packages.get(name))
    return f"{cpu['model']}, {cpu['cores']} virtual cores, {versions}, {conditions['date'][:10]}."


def latency(document: Row) -> str:
    """Renders the rows of ``benchmarks/latency.py``."""
    rows = []
    for row in document["rows"]:
        if "cpu_ms" not in row:
            rows.append([row["label"], "", "", "", "", row.get("error", "did not run")])
            continue
        ratio = row["ratio"][row["judged_by"]]["estimate"] if "ratio" in row else 1.0
        rows.append(
            [
                row["label"],
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{three_digits(row['cpu_ms']['p50'])} ms",
                three_digits(ratio),
                f"{row['memory_mib']['peak']:.0f} MiB",
                row.get("verdict", "base"),
            ]
        )
    header = ["file", "size", "processor time per clip, median", "ratio", "peak memory", "verdict"]
    return _table(header, rows) + f"\n\nOne thread, interleaved. {_conditions(document)}"


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
    return _table([*header, "largest difference", "verdict"], rows) + f"\n\n{about} {_conditions(document)}"


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
    return _table(header, rows) + f"\n\n{corpus}. {_conditions(document)}"


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
    return _table(header, rows) + f"\n\nProcessor time. {_conditions(document)}"


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
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


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
    return _table(["file", *names], rows) + f"\n\n{about} {_conditions(document)}"


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
    return _table(header, rows) + f"\n\nOne thread. {_conditions(document)}"


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
    return _table(header, rows) + f"\n\n{_conditions(document)}"


def robustness(document: Row) -> str:
    """Renders ``benchmarks/robustness.py``: a row for each condition, three columns for each artifact."""
    labels = list(dict.fromkeys(row["label"] for row in document["rows"]))
    cells: dict[str, list[str]] = {}
    for row in document["rows"]:
        change = {name: 100 * row["eer_change"][name] for name in ("estimate", "low", "high")}
        cells.setdefault(row["about"], []).extend(
            (
                f"{row['eer']['estimate']:.1%}",
                "{estimate:+.1f} ({low:+.1f} to {high:+.1f})".format(**change),
                f"{row['flipped']['estimate']:.1%}",
            )
        )
    header = ["condition"]
    for label in labels:
        header += [f"{label}: EER", "change in points, 95 % interval", "decisions flipped"]
    counts = document["conditions"]["trials"]
    about = f"{counts['bonafide']} bona fide clips and {counts['spoof']} spoofs, each through every channel."
    rows = [[name, *values] for name, values in cells.items()]
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


def parity(document: Row) -> str:
    """Renders ``benchmarks/parity.py``."""
    rows = []
    for row in document["rows"]:
        shown = {name: 100 * row["difference"][name] for name in ("estimate", "low", "high")}
        rows.append(
            [
                f"`{row['file']['name']}`",
                f"{row['file']['bytes'] / 1024:.0f} KiB",
                row["word"],
                f"{row['candidate_eer']:.2%}",
                "{estimate:+.2f} ({low:+.2f} to {high:+.2f})".format(**shown),
                f"{row['agreement']['pearson']:.4f}",
                str(len(row["flips"])),
            ]
        )
    header = ["file", "size", "verdict", "EER", "change in points, 95 % interval", "Pearson", "flipped"]
    conditions, first = document["conditions"], document["rows"][0]
    about = (
        f"Instead of `{conditions['reference']['name']}`, whose EER is {first['reference_eer']:.2%} on "
        f"{first['bonafide']:,} bona fide clips and {first['spoof']:,} spoofs; "
        f"{100 * conditions['allowed_eer_difference']:.2f} points more are allowed."
    )
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


def quantized(document: Row) -> str:
    """Renders ``benchmarks/quantized.py``."""
    rows = []
    for row in document["rows"]:
        close, eer = row["agreement"], row.get("eer_difference")
        shown = eer and {name: 100 * eer[name] for name in ("estimate", "low", "high")}
        differences = [close[f"{name}_difference"] for name in ("median", "p95", "max")]
        rows.append(
            [
                f"`{row['label']}`",
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{row['ratio']['cpu']['estimate']:.2f}" if "ratio" in row else "",
                " / ".join(f"{value:.2g}" for value in differences),
                f"{close['pearson']:.4f}",
                "{estimate:+.1f} ({low:+.1f} to {high:+.1f})".format(**shown) if shown else "",
                str(row.get("flipped", "")),
                f"{row['pooled_nodes']['other_set']:.0%}" if row["pooled_nodes"] else "",
            ]
        )
    header = [
        *("recipe", "size", "time", "score differs by: median / p95 / most", "Pearson"),
        *("EER, change in points, 95 % interval", "decisions flipped", "clips with other nodes"),
    ]
    conditions = document["conditions"]
    size = f"{conditions['source']['bytes'] / 1024:.0f} KiB"
    about = f"Beside the float32 file ({size}), {conditions['clips']} clips, one thread."
    if "score_deviation" in conditions:
        about += f" Its scores have a standard deviation of {conditions['score_deviation']:.2g}."
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


def training(document: Row) -> str:
    """Renders ``benchmarks/training.py``: a row for each split."""
    rows = []
    for row in document["rows"]:
        change = {name: 100 * row["difference"][name] for name in ("estimate", "low", "high")}
        rows.append(
            [
                row["split"],
                f"{row['bonafide']} / {row['spoof']}",
                *(_of_seeds(row[way]) for way in ("base", "other")),
                "{estimate:+.1f} ({low:+.1f} to {high:+.1f})".format(**change),
            ]
        )
    conditions = document["conditions"]
    ways = [_way(conditions[way]["teachers"]) for way in ("base", "other")]
    header = ["split", "bona fide / spoofs", *(f"{way}: EER of each seed" for way in ways)]
    schedule, name = conditions["recipe"]["schedule"], conditions["recipe"]["model"]["name"]
    recordings = sum(row["recordings"] for row in conditions["data"])
    about = (
        f"{name}, last of {schedule['steps']:,} steps of {schedule['batch']} crops of the same "
        f"{recordings:,} recordings."
    )
    return _table([*header, "change in points, 95 % interval"], rows) + f"\n\n{about} {_conditions(document)}"


def _of_seeds(found: Row) -> str:
    """Returns the EER of each seed and their mean; of a single one its own."""
    each = [f"{100 * eer:.1f}" for eer in found["eers"]]
    mean = "{estimate:.1%} ({low:.1%} to {high:.1%})".format(**found["mean"])
    return f"{' / '.join(each)} %, mean {mean}" if len(each) > 1 else mean


def _way(teachers: list[Row]) -> str:
    if not teachers:
        return "labels alone"
    files = Counter(one["file"] for one in teachers)  # seeds of one recipe lie in folders of their own
    return "taught by " + ", ".join(f"{count} `{file}`" for file, count in files.items())


def seeds(document: Row) -> str:
    """Renders ``benchmarks/seeds.py``: a row for each set of trials."""
    rows = []
    for row in document["rows"]:
        cells = [_of_seeds(found) for found in row["detectors"].values()]
        heard = f"{row['split']}, {row['dataset'] or row['condition']}"
        rows.append([heard, f"{row['bonafide']} / {row['spoof']}", *cells])
    names = document["rows"][0]["detectors"]
    counts = {name: len(found["eers"]) for name, found in names.items()}
    header = ["trials", "bona fide / spoofs"]
    header += [f"{name}, {count} seeds" if count > 1 else name for name, count in counts.items()]
    return _table(header, rows) + f"\n\nEER with its 95 % interval. {_conditions(document)}"


def streaming(document: Row) -> str:
    """Renders ``benchmarks/streaming.py``: a row for each way of the halves."""
    rows = []
    for row in document["rows"]:
        change = {name: 100 * row["eer_difference"][name] for name in ("estimate", "low", "high")}
        differences = [row["agreement"][f"{name}_difference"] for name in ("median", "p95", "max")]
        rows.append(
            [
                row["label"],
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{row['hop_share']:.1%}",
                *(f"{row['time'][way]['ratio']['cpu']['estimate']:.1%}" for way in ("row", "single")),
                " / ".join(f"{value:.2g}" for value in differences),
                "{estimate:+.1f} ({low:+.1f} to {high:+.1f})".format(**change),
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
    return _table(header, rows) + f"\n\n{about} {_conditions(document)}"


def on_device(document: Row) -> str:
    """Renders what ``benchmarks/on_device.py``, the app or the page (``web_demo/``) measured on a device."""
    rows = []
    for row in document["rows"]:
        device, times, golden = row["device"], row["ms"], row["golden"]
        named = (device.get("manufacturer"), device["model"], device.get("chip"))
        figures = (times["p50"], times["p90"], times["least"], row["first_run_ms"], row["load_ms"])
        cells = [
            " ".join(filter(None, named)),
            row["file"],
            ", ".join(filter(None, (row["library"], row.get("runtime"), row.get("where")))),
            str(row["threads"]),
            *("" if value is None else f"{three_digits(value)} ms" for value in figures),
            f"{golden['max_difference']:.0e}" if golden else "",
            "" if row["steady"] else "never steady",
        ]
        rows.append([cell.replace("|", "/") for cell in cells])  # a browser's name for a device is anything
    header = ["device", "file", "runtime", "threads", "median", "p90", "least", "first run", "load"]
    conditions = document["conditions"]
    where = "In a browser, by the page's own clock. " if _in_browser(document) else ""
    return _table([*header, "largest difference", ""], rows) + f"\n\n{where}{conditions['date'][:10]}."


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
    "parity": parity,
    "quantized": quantized,
    "streaming": streaming,
    "training": training,
    "seeds": seeds,
    "on-device": on_device,
}
