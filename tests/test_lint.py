"""Lint: what targets do not take, what a graph costs, and that no damaged file gets past in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import CheckFailed, UserError
from antispoof.graph_cost import Graph, Node, Value, total_cost
from antispoof.manifest import describe_file, manifest_path
from antispoof.models import create_model, model_names, small_config
from antispoof.speechlike import speech_like
from export import to_coreml, to_onnx, to_tflite
from export.findings import Finding
from export.graph import ScoreGraph
from export.lint import Report, lint, main
from export.placement import partitions, place
from export.targets import REWRITES, SUPPORT, load_target, target_names
from runtimes import litert
from runtimes.graphs import READERS, read_graph
from runtimes.mlpackage import import_coremltools, quiet

Capture = pytest.CaptureFixture[str]
SAMPLES = 64_600
F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, shape: list[int | str] | None, dtype: int = F32) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: np.ndarray
) -> Path:
    """Writes an ONNX file as public code would: no manifest, no facts."""
    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture
def aasist_like(tmp_path: Path) -> Path:
    """The operations that make the public AASIST hard on phones, in its own order and at its own length."""
    nodes = [
        helper.make_node("Conv", ["wave", "sinc"], ["filtered"]),
        helper.make_node("Abs", ["filtered"], ["size"]),
        helper.make_node("MaxPool", ["size"], ["pooled"], kernel_shape=[3], strides=[3]),
        helper.make_node("Selu", ["pooled"], ["active"]),
        helper.make_node("TopK", ["active", "k"], ["top", "places"]),
        helper.make_node("GatherElements", ["active", "places"], ["picked"], axis=-1),
        helper.make_node("ScatterND", ["picked", "where", "update"], ["written"]),
        helper.make_node("ReduceSum", ["written"], ["score"], keepdims=0),
    ]
    return save(
        tmp_path / "public.onnx",
        nodes,
        [value("wave", [1, 1, SAMPLES])],
        [value("score", [])],
        sinc=weights(4, 1, 129),
        k=np.array([5], np.int64),
        where=np.array([[0, 0, 0]], np.int64),
        update=weights(1),
    )


def found(report: Report, check: str) -> dict[str, Finding]:
    return {finding.what: finding for finding in report.findings if finding.check == check}


# The public graph


def test_nnapi_refuses_what_is_known_of_the_public_aasist(aasist_like: Path) -> None:
    report = lint(aasist_like, "nnapi")
    missing = {what.removeprefix("no ") for what in found(report, "operation")}
    assert missing == {"Selu", "TopK", "GatherElements", "ScatterND", "ReduceSum"}
    assert found(report, "operation")["no Selu"].todo == "write it as Elu times a constant"
    assert found(report, "operation")["no Selu"].names == ("active",)
    assert set(found(report, "type")) == {"computes in int64"}
    assert set(found(report, "rule")) == {"Conv of rank 3", "MaxPool of rank 3"}
    # All multiply-adds are the convolution's, and it is not taken.
    assert (report.placement.fallback, found(report, "rule")["Conv of rank 3"].share) == (1, 1)


def test_the_neural_engine_refuses_axes_windows_and_types(aasist_like: Path) -> None:
    report = lint(aasist_like, "ane")
    (axis,) = found(report, "axis").values()
    assert axis.what == "axis over 16,384, up to 64,600"
    assert axis.count == 6  # Conv, Abs, MaxPool, and of 21,490: Selu, TopK and GatherElements
    assert "Conv with a window over 13" in found(report, "rule")
    assert "computes in float32" in found(report, "type")
    assert report.partitions == 0


def test_onnx_runtime_on_the_cpu_takes_it_all(aasist_like: Path) -> None:
    report = lint(aasist_like)
    assert (report.target.name, report.placement.refused, report.partitions) == ("onnxruntime-cpu", {}, 1)
    assert {finding.check for finding in report.findings} == {"metadata"}


def test_our_own_export_is_clean_and_public_trouble_is_gone(exported_model: Path, capsys: Capture) -> None:
    assert main([str(exported_model), "--max-fallback", "0", "--max-partitions", "1"]) == 0
    shown = capsys.readouterr().out
    assert "verdict     clean" in shown
    assert "no thresholds and no calibration" in shown
    missing = {
        what for target in ("nnapi", "coreml") for what in found(lint(exported_model, target), "operation")
    }
    assert not missing & {"no TopK", "no GatherElements", "no ScatterND", "no Expand", "no Where"}
    assert lint(exported_model, "qnn").partitions == 1


# What it costs


def case(kind: str, weight: np.ndarray, shape: list[int], macs: int, **attributes: Any) -> tuple[Any, ...]:
    return helper.make_node(kind, ["x", "w"], ["y"], **attributes), weight, shape, macs


COSTS = {
    "Conv": case("Conv", weights(6, 4, 3), [1, 4, 9], 6 * 4 * 12, strides=[2]),
    "Conv, grouped": case("Conv", weights(6, 2, 3), [1, 4, 9], 6 * 9 * 2 * 3, group=2, pads=[1, 1]),
    "ConvTranspose": case("ConvTranspose", weights(4, 5, 3), [1, 4, 9], 4 * 9 * 5 * 3),
    "MatMul": case("MatMul", weights(9, 7), [2, 4, 9], 2 * 4 * 9 * 7),
    "Gemm, turned": case("Gemm", weights(4, 7), [4, 9], 9 * 4 * 7, transA=1),
    "Einsum": case("Einsum", weights(9, 7), [2, 4, 9], 2 * 4 * 9 * 7, equation="bij,jk->bik"),
    "element-wise": case("Mul", weights(9), [2, 4, 9], 0),
}


@pytest.mark.parametrize("case", COSTS)
def test_multiply_adds_are_those_counted_by_hand(case: str, tmp_path: Path) -> None:
    node, weight, shape, expected = COSTS[case]
    graph = read_graph(save(tmp_path / "m.onnx", [node], [value("x", shape)], [value("y", None)], w=weight))
    cost = total_cost(graph.nodes, graph.values)
    assert (cost.macs, cost.unknown) == (expected, 0)
    written = graph.values["y"]
    assert (cost.elements, cost.bytes_written) == (written.elements, 4 * written.elements)
    assert cost.bytes_read == 4 * (np.prod(shape) + weight.size)


def test_multiply_adds_are_those_that_pytorch_counts(exported_model: Path) -> None:
    graph = read_graph(exported_model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector = create_model("aasist-l")
        ScoreGraph(detector)(detector.example_input())
    cost = total_cost(graph.nodes, graph.values)
    # PyTorch's counter leaves out 32,880 of products with vectors; 1,536 follow from weights alone and are
    # folded away by the exporter.
    assert cost.macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-5)
    assert cost.unknown == 0


def test_a_loop_costs_its_body_times_its_repeats(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Add", ["next", "item"], ["out"]),
        ],
        "body",
        [value("state", [1, 4]), value("item", [1, 4])],
        [value("next", [1, 4]), value("out", [1, 4])],
    )
    scan = helper.make_node("Scan", ["start", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    path = save(
        tmp_path / "m.onnx",
        [scan],
        [value("x", [6, 1, 4])],
        [value("last", [1, 4]), value("y", [6, 1, 4])],
        w=weights(4, 4),
        start=weights(1, 4),
    )
    graph = read_graph(path)
    assert total_cost(graph.nodes, graph.values).macs == 6 * 16
    assert "no Scan" in found(lint(path, "webgpu"), "operation")
    assert not lint(path).placement.refused


def test_what_follows_from_constants_and_shapes_is_folded_away(tmp_path: Path) -> None:
    """The older exporter of torch computes the shape of every Expand in the graph."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "last"], ["size"]),
        helper.make_node("Concat", ["two", "size"], ["wanted"], axis=0),
        helper.make_node("Expand", ["row", "wanted"], ["wide"]),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    constants = {"last": np.array([1]), "two": np.array([5], np.int64), "row": weights(1, 1)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [3, 5])], [value("y", None)], **constants)
    graph = read_graph(path)
    assert [node.kind for node in graph.nodes] == ["MatMul"]
    assert total_cost(graph.nodes, graph.values).macs == 3 * 5 * 5


# Pieces


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


# Other findings


def test_a_free_batch_size_is_a_problem_where_shapes_must_be_fixed(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", ["batch", 8])],
        [value("y", ["batch", 8])],
    )
    (finding,) = found(lint(path, "qnn"), "shape").values()
    assert (finding.level, finding.what) == ("problem", "shape decided at run time: x [batch, 8]")
    (finding,) = found(lint(path, "webgpu"), "shape").values()
    assert finding.level == "note"


def test_randomness_left_in_the_graph_is_a_problem(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["noise"], shape=[1, 8]),
        helper.make_node("Dropout", ["x"], ["kept"]),
        helper.make_node("Add", ["kept", "noise"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 8])], [value("y", [1, 8])])
    (finding,) = found(lint(path), "random").values()
    assert (finding.level, finding.count, finding.what) == (
        "problem",
        2,
        "Dropout, RandomNormal left in the graph",
    )


def test_constants_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "epsilon"], ["a"]),
        helper.make_node("Mul", ["a", "mask"], ["b"]),
        helper.make_node("Add", ["b", "fine"], ["y"]),
    ]
    constants = {
        "epsilon": np.array(1e-12, np.float32),
        "mask": np.array([-1e9, 0], np.float32),
        "fine": np.array([1e-5, -np.inf], np.float32),
    }
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 2])], [value("y", [1, 2])], **constants)
    named = {finding.names: finding.level for finding in found(lint(path, "ane"), "half").values()}
    assert named == {("epsilon",): "problem", ("mask",): "problem"}
    assert {f.level for f in found(lint(path, "qnn"), "half").values()} == {"note"}
    assert not found(lint(path, "onnxruntime-cpu"), "half")


def test_values_on_real_clips_are_held_against_half_precision(tmp_path: Path, speech_folder: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["loud"]),
        helper.make_node("Mul", ["loud", "tiny"], ["quiet"]),
        helper.make_node("ReduceSum", ["quiet"], ["y"], keepdims=0),
    ]
    constants = {"huge": np.full(1, 6e5, np.float32), "tiny": np.full(1, 1e-12, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 16000])], [value("y", [])], **constants)
    report = lint(path, "ane", speech_folder)
    over = next(f for what, f in found(report, "half").items() if what.startswith("values beyond 65504"))
    small = next(f for what, f in found(report, "half").items() if what.startswith("values mostly below"))
    peak = max(np.abs(soundfile.read(clip)[0][:16000]).max() for clip in sorted(speech_folder.glob("*.wav")))
    assert (over.level, over.names, over.what.rpartition(" ")[2]) == (
        "problem",
        ("loud",),
        f"{6e5 * peak:.3g}",
    )
    assert (small.level, small.names[0]) == ("note", "quiet")


def test_metadata_that_is_missing_or_lies(exported_model: Path, aasist_like: Path, tmp_path: Path) -> None:
    def problems(path: Path) -> list[str]:
        return [f.what for f in found(lint(path), "metadata").values() if f.level == "problem"]

    assert problems(exported_model) == []
    assert problems(aasist_like) == ["no manifest beside it (public.onnx.manifest.json)"]
    copy = tmp_path / exported_model.name
    shutil.copy(manifest_path(exported_model), manifest_path(copy))
    model = onnx.load(exported_model)
    del model.metadata_props[:]
    copy.write_bytes(model.SerializeToString())
    assert "bytes long where its manifest says" in problems(copy)[0]
    facts = json.loads(manifest_path(copy).read_text())
    facts["file"] = vars(describe_file(copy))
    manifest_path(copy).write_text(json.dumps(facts))
    assert problems(copy) == ["the file itself does not say what it is"]
    shutil.copy(exported_model, copy)
    facts["file"] = vars(describe_file(copy))
    facts["licence"] = "none"
    manifest_path(copy).write_text(json.dumps(facts))
    assert problems(copy) == ["the file itself says otherwise of licence"]


def test_weights_beside_the_file_are_a_problem(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", [1, 64])],
        [value("y", [1, 64])],
        w=weights(64, 64),
    )
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert "weights outside of the file: m.data" in found(lint(path), "metadata")
    (tmp_path / "m.data").unlink()
    with pytest.raises(UserError, match=r"m\.data"):
        lint(path)


# The command


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (["--max-fallback", "99"], "100.00 % of the multiply-adds are left out, allowed are 99 %"),
        (["--max-partitions", "0"], "1 partitions, allowed are 0"),
        (["--max-fallback", "100", "--max-partitions", "1"], None),
    ],
)
def test_budgets(flags: list[str], wrong: str | None, aasist_like: Path, capsys: Capture) -> None:
    call = [str(aasist_like), "--target", "nnapi", *flags]
    if wrong is None:
        assert main(call) == 0
    else:
        with pytest.raises(CheckFailed, match=wrong):
            main(call)
    assert "partitions" in capsys.readouterr().out  # what was found is shown either way


def test_json_says_what_the_table_says(aasist_like: Path, capsys: Capture) -> None:
    assert main([str(aasist_like), "--target", "ane", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["macs"] == 4 * 129 * (SAMPLES - 128)
    assert (facts["fallback_percent"], facts["clean"], facts["operations"]) == (100, False, 8)
    assert main([str(aasist_like), "--target", "ane"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("problem ", "note ")) for line in lines) == len(facts["findings"])


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["no.onnx"], "no such model file"),
        (["words.txt"], "not a model file"),
        (["weights.pth"], "export it first"),
        (["empty.onnx"], "it has no nodes"),
        (["page.onnx"], "not an ONNX model"),
        (["page.tflite"], "not a TFLite model"),
        (["page.mlpackage"], "not a folder"),
        (["good.onnx", "--target", "gpu"], "choose ane, coreml, nnapi"),
        (["good.onnx", "--max-fallback", "101"], "0 to 100"),
        (["good.onnx", "--max-partitions", "-1"], "0 or more"),
        (["good.onnx", "--audio", "nowhere"], "no such folder"),
        (["two.onnx", "--audio", "."], "one input"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], hint: str, tmp_path: Path, aasist_like: Path) -> None:
    for name in ("words.txt", "weights.pth", "page.onnx", "page.tflite", "page.mlpackage"):
        (tmp_path / name).write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "empty.onnx").write_bytes(b"")
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    save(tmp_path / "two.onnx", nodes, [value("a", [1, 2]), value("b", [1, 2])], [value("y", [1, 2])])
    good = [helper.make_node("Relu", ["x"], ["y"])]
    save(tmp_path / "good.onnx", good, [value("x", [1, 8000])], [value("y", [1, 8000])])
    soundfile.write(tmp_path / "clip.wav", speech_like(0, SAMPLE_RATE), SAMPLE_RATE)
    where = [str(tmp_path / flag) if "." in flag or flag == "nowhere" else flag for flag in flags]
    with pytest.raises(UserError, match=hint) as error:
        main(where)
    assert "\n" not in str(error.value)


# The tables


@pytest.mark.parametrize("name", target_names())
def test_a_table_says_where_it_is_from_and_names_what_exists(name: str) -> None:
    taken = [format for format in READERS if format in (SUPPORT / f"{name}.toml").read_text()]
    tables = [load_target(name, format) for format in taken if _has(name, format)]
    assert tables
    for format, table in zip([f for f in taken if _has(name, f)], tables, strict=True):
        assert table.sources
        assert table.read.year >= 2026
        assert set(table.only) <= table.operations | {"GatherND"}
        assert {kind for kind in table.operations if ":" not in kind} <= known_kinds(format)
        rules = {key for row in table.only.values() for key in row}
        assert rules <= {"ranks", "constant", "inputs", "kernel", "axis", "attributes"}


def _has(name: str, format: str) -> bool:
    try:
        return bool(load_target(name, format))
    except UserError:
        return False


def known_kinds(format: str) -> set[str]:
    """Every operation that a format has, as its own library lists them."""
    if format == "onnx":
        # Kernels that ONNX Runtime kept from before the standard.
        own = {"Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"}
        return (
            {row.name for row in onnx.defs.get_all_schemas_with_history()}
            | own
            | {"SimplifiedLayerNormalization"}
        )
    if format == "tflite":
        from ai_edge_litert import schema_py_generated

        return set(vars(schema_py_generated.BuiltinOperator))
    pytest.importorskip("coremltools")
    import_coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    return set(SSAOpRegistry.core_ops)


def test_advice_is_for_operations_that_exist_once_each() -> None:
    import tomllib

    rows = tomllib.loads((SUPPORT / f"{REWRITES}.toml").read_text())["rewrite"]
    kinds = [kind for row in rows for kind in row["kinds"]]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) <= set().union(*map(known_kinds, READERS))


# TFLite and Core ML


def tflite_file(path: Path, *kinds: str) -> Path:
    """Writes a chain of operations on four numbers; what gives truth values is cast back."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    model.subgraphs, graph.tensors, graph.operators = [graph], [], []
    steps = [step for kind in kinds for step in ([kind, "CAST"] if kind == "EQUAL" else [kind])]
    for index in range(len(steps) + 1):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{index}", [1, 4], 0
        truth = index and steps[index - 1] == "EQUAL"
        tensor.type = schema.TensorType.BOOL if truth else schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    for index, kind in enumerate(steps):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        model.operatorCodes.append(code)
        operator.opcodeIndex, operator.outputs = index, [index + 1]
        operator.inputs = [index, index] if kind in ("ADD", "EQUAL", "MUL") else [index]
        if kind in ("ADD", "MUL"):
            options = {"ADD": schema.AddOptionsT, "MUL": schema.MulOptionsT}[kind]()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            operator.builtinOptions = options
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(steps)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    "kinds",
    [("ADD", "ELU"), ("ADD", "ELU", "EQUAL", "MUL", "TANH"), ("EQUAL", "EXP", "ADD", "SIGN", "ADD", "ABS")],
)
def test_the_table_of_xnnpack_says_what_xnnpack_does(kinds: tuple[str, ...], tmp_path: Path) -> None:
    path = tflite_file(tmp_path / "m.tflite", *kinds)
    placement = place(read_graph(path), load_target("xnnpack", "tflite"))
    assert litert.partitions(path) == litert.Partitions(placement.partitions, len(placement.refused))
    report = lint(path)
    assert report.partitions == placement.partitions
    assert not found(report, "partitions")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a small ML Program over a long waveform, in float32 or float16."""
    pytest.importorskip("coremltools")
    coremltools = import_coremltools()
    from coremltools.converters.mil import Builder as mb

    def write(precision: str) -> Path:
        def build(x: Any) -> Any:
            folded = mb.reshape(x=x, shape=[1, 4, 1, SAMPLES // 4])
            y = mb.conv(x=folded, weight=weights(8, 4, 1, 5), strides=[1, 5])
            return mb.reduce_mean(x=mb.elu(x=y, alpha=1.0), axes=[1, 2, 3])

        with quiet():
            program = mb.program(
                input_specs=[mb.TensorSpec((1, SAMPLES))], opset_version=coremltools.target.iOS17
            )(build)
            model = coremltools.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS17,
                compute_precision=coremltools.precision[precision],
                skip_model_load=True,
            )
            path = tmp_path_factory.mktemp("package") / f"{precision}.mlpackage"
            model.save(str(path))
        return path

    return write


def test_half_precision_folded_fits_the_neural_engine(package: Callable[[str], Path]) -> None:
    path = package("FLOAT16")
    report = lint(path, "ane")
    assert {f.check for f in report.findings if f.level == "problem"} == {"metadata"}  # there is no manifest
    assert (report.placement.fallback, report.partitions) == (0, 1)
    (ends,) = found(report, "ends").values()
    assert ends.level == "note"
    assert total_cost(report.graph.nodes, report.graph.values).macs == 8 * 4 * 5 * (SAMPLES // 4 // 5)


def test_float32_does_not(package: Callable[[str], Path], tmp_path: Path) -> None:
    path = package("FLOAT32")
    report = lint(path, "ane")
    assert (report.placement.fallback, report.partitions) == (1, 0)
    assert "to_coreml.py --precision float16" in found(report, "type")["computes in float32"].todo
    assert lint(path, "coreml").partitions == 1
    soundfile.write(tmp_path / "clip.wav", speech_like(0, SAMPLE_RATE), SAMPLE_RATE)
    half = found(lint(path, "coreml", tmp_path), "half")
    assert any("tensors stay within" in what for what in half)


# Damage


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory, package: Callable[[str], Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("victims")
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Conv", ["same", "w"], ["c"]),
        helper.make_node("Selu", ["c"], ["y"]),
    ]
    return {
        "onnx": save(
            folder / "m.onnx", nodes, [value("x", [1, 1, 32])], [value("y", [1, 2, 30])], w=weights(2, 1, 3)
        ),
        "tflite": tflite_file(folder / "m.tflite", "ADD", "EQUAL", "MUL"),
        "coreml": package("FLOAT16"),
    }


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_found_or_does_no_harm(
    format: str, data: st.DataObject, victims: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / victims[format].name
    if victims[format].is_dir():
        shutil.copytree(victims[format], path, dirs_exist_ok=True)
        file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    else:
        shutil.copy(victims[format], path)
        file = path
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    try:
        assert main([str(path)]) == 0
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - reading it is as good an outcome


def test_a_file_that_kills_litert_is_one_line(victims: dict[str, Path], tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(victims["tflite"].read_bytes())
    table = schema.Model.GetRootAs(content, 0).Subgraphs(0).Operators(0)._tab
    inputs = table.Vector(table.Offset(6))  # where an operator's inputs are
    content[inputs : inputs + 4] = b"\xff" * 4  # an addition without its first number
    path = tmp_path / "m.tflite"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="LiteRT crashes on it"):
        lint(path)


# Every model


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_costs_the_same_in_every_format_and_xnnpack_agrees(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random", "--out", str(tmp_path)]
    for key, setting in small_config(name).items():
        flags += ["--set", f"{key}={setting if isinstance(setting, str) else json.dumps(setting)}"]
    for exporter in (to_onnx, to_tflite, to_coreml):
        assert exporter.main(flags) == 0
    costs = {}
    for suffix in (".onnx", ".tflite", ".mlpackage"):
        report = lint(tmp_path / f"{name}{suffix}")
        assert report.graph.facts is not None
        assert (
            not [f for f in report.findings if f.level == "problem" and f.check != "partitions"]
            or suffix == ".tflite"
        )
        costs[suffix] = report.placement.whole
        assert report.placement.whole.unknown == 0
    # Tiles of time overlap, and the static scan does more than the loop.
    assert costs[".mlpackage"].macs == pytest.approx(costs[".onnx"].macs, rel=0.02)
    assert costs[".onnx"].macs <= costs[".tflite"].macs * 1.02
    actual = litert.partitions(tmp_path / f"{name}.tflite")
    predicted = place(read_graph(tmp_path / f"{name}.tflite"), load_target("xnnpack", "tflite"))
    # What XNNPACK leaves out beyond the table are reshapes to a number, of which WavLM has four.
    assert 0 <= actual.outside - len(predicted.refused) <= 4
