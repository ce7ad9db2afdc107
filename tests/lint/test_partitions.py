"""Into how many pieces what a target refuses cuts a graph, and what does not count at its ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antispoof.graph_cost import Graph, Node, Value
from export.placement import partitions, place
from export.targets import load_target
from tests.lint.small_files import SAMPLES


def chain(kinds: str) -> tuple[tuple[Node, ...], set[int]]:
    nodes = [Node(kind, str(i), (f"v{i}",), (f"v{i + 1}",)) for i, kind in enumerate(kinds)]
    return tuple(nodes), {index for index, kind in enumerate(kinds) if kind == "U"}


@pytest.mark.parametrize(
    ("kinds", "pieces"), [("S", 1), ("U", 0), ("SSS", 1), ("SUS", 2), ("USU", 1), ("SUSUUS", 3)]
)
def test_pieces_of_a_chain(kinds: str, pieces: int) -> None:
    assert partitions(*chain(kinds)) == pieces


@given(data=st.data())
def test_pieces_are_the_rounds_of_running_all_that_is_ready(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    reads = [
        tuple(f"v{i}" for i in data.draw(st.sets(st.integers(0, max(n - 1, 0)), max_size=3)) if i < n)
        for n in range(count)
    ]
    nodes = tuple(Node("k", str(n), (*reads[n], "x"), (f"v{n}",)) for n in range(count))
    refused = data.draw(st.sets(st.integers(0, count - 1)))
    done, there, pieces = set(), {"x"}, 0
    for taken in [False, True] * (count + 1):
        before = len(done)
        while ready := [
            n
            for n in range(count)
            if n not in done and (n not in refused) == taken and there.issuperset(nodes[n].inputs)
        ]:
            done.update(ready)
            there.update(f"v{n}" for n in ready)
        pieces += taken and len(done) > before
    assert len(done) == count
    assert partitions(nodes, refused) == pieces


def test_layout_at_the_ends_is_a_note_and_in_the_middle_a_problem() -> None:
    def graph(*kinds: str) -> Graph:
        values = {f"v{i}": Value("float16", (1, 8)) for i in range(len(kinds) + 1)}
        values["v0"] = Value("float16", (1, SAMPLES))
        nodes = tuple(Node(kind, str(i), (f"v{i}",), (f"v{i + 1}",)) for i, kind in enumerate(kinds))
        return Graph("coreml", nodes, values, ("v0",), (f"v{len(kinds)}",), None)

    ane = load_target("ane", "coreml")
    assert place(graph("reshape", "relu", "relu"), ane).ends == {0}
    assert place(graph("relu", "relu"), ane).ends == frozenset()
    assert place(graph("relu", "gather", "relu"), ane).ends == frozenset()
