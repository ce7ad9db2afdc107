"""Renders results that say how well files and networks detect, as tables in Markdown."""

from __future__ import annotations

from collections import Counter

from benchmarks.pages.table_parts import Row, measured_on, points, table


def robustness(document: Row) -> str:
    """Renders ``benchmarks/robustness.py``: a row for each condition, three columns for each artifact."""
    labels = list(dict.fromkeys(row["label"] for row in document["rows"]))
    cells: dict[str, list[str]] = {}
    for row in document["rows"]:
        cells.setdefault(row["about"], []).extend(
            (
                f"{row['eer']['estimate']:.1%}",
                points(row["eer_change"]),
                f"{row['flipped']['estimate']:.1%}",
            )
        )
    header = ["condition"]
    for label in labels:
        header += [f"{label}: EER", "change in points, 95 % interval", "decisions flipped"]
    counts = document["conditions"]["trials"]
    about = f"{counts['bonafide']} bona fide clips and {counts['spoof']} spoofs, each through every channel."
    rows = [[name, *values] for name, values in cells.items()]
    return table(header, rows) + f"\n\n{about} {measured_on(document)}"


def accuracy(document: Row) -> str:
    """Renders ``benchmarks/accuracy.py``: the EER of all attacks together and of each."""
    interval = document.get("eer_interval")
    spread = f"{interval['low']:.2%} to {interval['high']:.2%}" if interval else ""
    rows = [
        [row["attack"], f"{row['trials']:,}", f"{row['value']:.2%}", "" if number else spread]
        for number, row in enumerate(document["rows"])
    ]
    trials, others = document["trials"], [f"minDCF {document['min_dcf']['value']:.4f}"]
    if "min_tdcf" in document:
        others.append(f"min t-DCF {document['min_tdcf']['value']:.4f}")
    if "act_dcf" in document:
        others += [f"actDCF {document['act_dcf']['value']:.4f}", f"Cllr {document['cllr']:.4f} bits"]
    if decided := document.get("decided"):
        others.append(f"{decided['miss']:.1%} of the bona fide trials refused")
        others.append(f"{decided['false_alarm']:.1%} of the spoofs passed")
    about = (
        f"`{document['inputs']['scores']['name']}`: {trials['bonafide']:,} bona fide trials and "
        f"{trials['spoof']:,} spoofs; {', '.join(others)}."
    )
    return table(["attack", "trials", "EER", "95 % interval"], rows) + f"\n\n{about} {measured_on(document)}"


def parity(document: Row) -> str:
    """Renders ``benchmarks/parity.py``."""
    rows = [
        [
            f"`{row['file']['name']}`",
            f"{row['file']['bytes'] / 1024:.0f} KiB",
            row["word"],
            f"{row['candidate_eer']:.2%}",
            points(row["difference"], digits=2),
            f"{row['agreement']['pearson']:.4f}",
            str(len(row["flips"])),
        ]
        for row in document["rows"]
    ]
    header = ["file", "size", "verdict", "EER", "change in points, 95 % interval", "Pearson", "flipped"]
    conditions, first = document["conditions"], document["rows"][0]
    about = (
        f"Instead of `{conditions['reference']['name']}`, whose EER is {first['reference_eer']:.2%} on "
        f"{first['bonafide']:,} bona fide clips and {first['spoof']:,} spoofs; "
        f"{100 * conditions['allowed_eer_difference']:.2f} points more are allowed."
    )
    return table(header, rows) + f"\n\n{about} {measured_on(document)}"


def quantized(document: Row) -> str:
    """Renders ``benchmarks/quantized.py``."""
    rows = []
    for row in document["rows"]:
        close, eer = row["agreement"], row.get("eer_difference")
        differences = [close[f"{name}_difference"] for name in ("median", "p95", "max")]
        rows.append(
            [
                f"`{row['label']}`",
                f"{row['bytes'] / 1024:.0f} KiB",
                f"{row['ratio']['cpu']['estimate']:.2f}" if "ratio" in row else "",
                " / ".join(f"{value:.2g}" for value in differences),
                f"{close['pearson']:.4f}",
                points(eer) if eer else "",
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
    return table(header, rows) + f"\n\n{about} {measured_on(document)}"


def training(document: Row) -> str:
    """Renders ``benchmarks/training.py``: a row for each split."""
    rows = [
        [
            row["split"],
            f"{row['bonafide']} / {row['spoof']}",
            *(_of_seeds(row[way]) for way in ("base", "other")),
            points(row["difference"]),
        ]
        for row in document["rows"]
    ]
    conditions = document["conditions"]
    ways = [_way(conditions[way]["teachers"]) for way in ("base", "other")]
    header = ["split", "bona fide / spoofs", *(f"{way}: EER of each seed" for way in ways)]
    schedule, name = conditions["recipe"]["schedule"], conditions["recipe"]["model"]["name"]
    recordings = sum(row["recordings"] for row in conditions["data"])
    about = (
        f"{name}, last of {schedule['steps']:,} steps of {schedule['batch']} crops of the same "
        f"{recordings:,} recordings."
    )
    return table([*header, "change in points, 95 % interval"], rows) + f"\n\n{about} {measured_on(document)}"


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
    """Renders ``benchmarks/seeds.py``: a row for each set of trials, and another table of the decisions."""
    rows = []
    for row in document["rows"]:
        cells = [_of_seeds(found) for found in row["detectors"].values()]
        heard = f"{row['split']}, {row['dataset'] or row['condition']}"
        rows.append([heard, f"{row['bonafide']} / {row['spoof']}", *cells])
    names = document["rows"][0]["detectors"]
    counts = {name: len(found["eers"]) for name, found in names.items()}
    header = ["trials", "bona fide / spoofs"]
    header += [f"{name}, {count} seeds" if count > 1 else name for name, count in counts.items()]
    about = f"EER with its 95 % interval. {measured_on(document)}"
    return "\n\n".join([table(header, rows), *_decisions(document), about])


def _decisions(document: Row) -> list[str]:
    """Returns a line and a table: what the detectors with thresholds of their own decide wrongly."""
    everywhere = [row["detectors"] for row in document["rows"]]
    # On every row, since figures that were taken over may be of before the decisions.
    deciding = [name for name in everywhere[0] if all(found[name].get("decided") for found in everywhere)]
    if not deciding:
        return []
    rows = []
    for row in document["rows"]:
        cells = [
            "; ".join("{miss:.1%} / {false_alarm:.1%}".format(**one) for one in found["decided"])
            for found in (row["detectors"][name] for name in deciding)
        ]
        rows.append([f"{row['split']}, {row['dataset'] or row['condition']}", *cells])
    first = document["rows"][0]["detectors"]
    points = [first[name]["decided"][0]["threshold"]["name"] for name in deciding]
    header = ["trials", *(f"{name} at `{point}`" for name, point in zip(deciding, points, strict=True))]
    about = "Bona fide clips refused / spoofs that pass, at the first threshold that the file carries:"
    return [about, table(header, rows)]
