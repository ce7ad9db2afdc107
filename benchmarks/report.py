"""Writes the tables of the documents from the committed results, so that no figure is typed by hand.

    python benchmarks/report.py            # rewrite the tables of README.md and benchmarks/results/README.md
    python benchmarks/report.py --check    # exit 1 where they and the results differ
    python benchmarks/report.py --html out/report.html --scores before.tsv --scores after.tsv --protocol LIST

A table stands between ``<!-- results: NAME -->`` and ``<!-- end -->`` and shows
``benchmarks/results/NAME.json``; the file's kind decides how.

--html leaves the documents alone and draws the results, or those of --results, as one page that works
offline. With --scores it also draws DET curves, and which decisions each score file flips against the first.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from antispoof.errors import EXIT_DONE, CheckFailed, UserError, run
from antispoof.outputs import write_whole
from antispoof.protocols import LAYOUTS
from benchmarks import accuracy
from benchmarks.pages.page import page, read_documents, write_page
from benchmarks.pages.result_tables import RENDERERS
from benchmarks.pages.score_charts import System
from benchmarks.pages.table_parts import Row
from benchmarks.results_file import reading

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
DOCUMENTS = ("README.md", "benchmarks/results/README.md")
TABLE = re.compile(r"<!-- results: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def read_results(name: str) -> Row:
    """Returns a results file by its name.

    Raises:
        UserError: There is none, or nothing here renders its kind.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise UserError(f"a table shows results that do not exist: {path.relative_to(REPOSITORY)}")
    document = json.loads(path.read_text(encoding="utf-8"))
    if document["kind"] not in RENDERERS:
        raise UserError(f"{path.name}: no table is known for results of kind {document['kind']!r}")
    return document


def render(text: str) -> str:
    """Returns ``text`` with every table between its marks made anew from the results."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        with reading(f"{name}.json"):
            document = read_results(name)
            return f"<!-- results: {name} -->\n{RENDERERS[document['kind']](document)}\n<!-- end -->"

    return TABLE.sub(table, text)


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--check", action="store_true", help="change nothing; exit 1 where a table is old")
    p.add_argument("--html", type=Path, metavar="FILE", help="write the page instead of the documents")
    p.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="results to draw")
    p.add_argument(
        "--scores", action="append", default=[], metavar="[NAME=]FILE", help="score file; may be repeated"
    )
    p.add_argument("--protocol", type=Path, help="the list of trials with their labels")
    p.add_argument("--protocol-format", choices=LAYOUTS, help="default: recognised from its first line")
    p.add_argument("--split", help="draw only this split of the protocol")
    p.add_argument("--force", action="store_true", help="overwrite the page")
    return p


def systems_of(args: argparse.Namespace) -> list[System]:
    """Returns the score files that the arguments name, with their labels."""
    systems = []
    for text in args.scores:
        named = re.fullmatch(r"([\w.+ -]+)=(.+)", text)
        path = Path(named[2] if named else text)
        scored = accuracy.load(
            path, args.protocol, protocol_format=args.protocol_format, split=args.split, allow_missing=True
        )
        if scored.is_bonafide.all() or not scored.is_bonafide.any():
            raise UserError(f"{path}: every trial is {scored.trials[0].label}; a curve needs both classes")
        systems.append(System(named[1] if named else path.stem, scored))
    return systems


def rewrite_tables(check: bool) -> None:
    """Puts the results' tables into the documents, or only compares.

    Raises:
        CheckFailed: ``check`` is set and they differ.
    """
    texts = {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    new = {name: after for name, before in texts.items() if (after := render(before)) != before}
    if check and new:
        raise CheckFailed(
            f"the tables of {' and '.join(new)} are not those of the results; run python benchmarks/report.py"
        )
    for name, text in new.items():
        write_whole(REPOSITORY / name, text)


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    if args.check and args.html:
        raise UserError("--check looks at the documents, --html leaves them alone; give one of them")
    if args.scores and not args.html:
        raise UserError("--scores are drawn on a page; name it with --html")
    if args.html:
        write_page(args.html, page(read_documents(args.results), systems_of(args), RENDERERS), args.force)
    else:
        rewrite_tables(args.check)
    return EXIT_DONE


if __name__ == "__main__":
    run(main)
