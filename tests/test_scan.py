"""Every form of the selective scan against Algorithm 2 of Gu and Dao 2023, written out with einsum."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antispoof.errors import UserError
from antispoof.lowering import ScanForm, current_lowering
from antispoof.scan import scan_form, selective_scan, selective_scan_step
from antispoof.scan.stable_softplus import exportable_softplus
from benchmarks import scan_limit
from benchmarks.results_file import read_results

FLOAT32_TOLERANCE = 5e-6  # of the largest output: some 40 roundings of 1.2e-7
FLOAT64_TOLERANCE = 1e-12  # the same sums in another order, at double precision
STREAM_TOLERANCE = 1e-6  # of the largest output: the same operations, step by step
SOFTPLUS_TOLERANCE = 1e-6  # relative: 8 roundings of float32
FORMS: tuple[ScanForm, ...] = ("reference", "eager", "onnx", "static")
Inputs = dict[str, Any]  # tensors by the names of selective_scan's arguments


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share: a second thread would only wait for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scan_inputs(
    length: int, batch: int = 2, channels: int = 5, states: int = 4, rate: float = 1.0, seed: int = 0
) -> Inputs:
    """Random inputs in float64 that float32 holds exactly, so that only the scan's own rounding shows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).double()

    return {
        "x": draw(batch, length, channels),
        "dt": draw(batch, length, channels),
        "A": (-rate * torch.exp(draw(channels, states))).float().double(),
        "B": draw(batch, length, states),
        "C": draw(batch, length, states),
        "D": draw(channels),
        "z": draw(batch, length, channels),
        "dt_bias": draw(channels) - 1,
    }


def oracle(inputs: Inputs, reverse: bool = False) -> torch.Tensor:
    """The discretised model over all time at once in (batch, channel, time, state) order."""
    if reverse:
        timed = {name: v.flip(1) if v.ndim == 3 else v for name, v in inputs.items()}
        return oracle(timed).flip(1)
    x, dt, A, B, C, D, z, bias = inputs.values()
    step = torch.logaddexp(dt + bias, torch.zeros_like(dt))
    kept = torch.einsum("btd,dn->bdtn", step, A).exp()
    added = torch.einsum("btd,btn,btd->bdtn", step, B, x)
    state = torch.zeros_like(added[:, :, 0])
    states = []
    for keep, add in zip(kept.unbind(2), added.unbind(2), strict=True):
        state = state * keep + add
        states.append(state)
    y = torch.einsum("tbdn,btn->btd", torch.stack(states), C) + torch.einsum("btd,d->btd", x, D)
    return y * z / (1 + torch.exp(-z))


def to_float32(inputs: Inputs) -> Inputs:
    return {name: v.float() for name, v in inputs.items()}


def relative_error(y: Any, expected: torch.Tensor) -> float:
    error = (torch.as_tensor(y).double() - expected).abs().max()
    return float(error / expected.abs().max().clamp(min=1e-30))  # at length 1 nothing depends on A


@pytest.mark.parametrize(
    ("length", "reverse"),
    [(1, False), (2, True), (67, False), (67, True), (201, False), (201, True), (402, False), (1000, True)],
)
@pytest.mark.parametrize("form", FORMS)
def test_form_agrees_with_the_paper(form: ScanForm, length: int, reverse: bool) -> None:
    inputs = scan_inputs(length)
    with torch.no_grad():
        y = selective_scan(**to_float32(inputs), form=form, reverse=reverse)
    assert y.dtype == torch.float32
    assert relative_error(y, oracle(inputs, reverse)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("form", ["eager", "static"])
def test_long_sequence(form: ScanForm) -> None:
    inputs = scan_inputs(4000, batch=1)
    y = selective_scan(**to_float32(inputs), form=form)
    assert relative_error(y, oracle(inputs)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("largest", [40.0, 400.0, 4000.0])
def test_strong_decay_stays_finite(form: ScanForm, largest: float) -> None:
    inputs = scan_inputs(67)
    step = torch.logaddexp(inputs["dt"] + inputs["dt_bias"], torch.zeros(()).double())
    strongest = torch.einsum("btd,dn->btdn", step, inputs["A"]).abs().max()
    inputs["A"] = (inputs["A"] * (largest / strongest)).float().double()
    with torch.no_grad():
        y = selective_scan(**to_float32(inputs), form=form)
    assert relative_error(y, oracle(inputs)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_skip_gate_and_bias_are_optional(form: ScanForm) -> None:
    inputs = scan_inputs(9)
    bare = {name: inputs[name].float() for name in ("x", "dt", "A", "B", "C")}
    neutral = inputs | {"D": torch.zeros(5).double(), "dt_bias": torch.zeros(5).double()}
    expected = oracle(neutral) / torch.nn.functional.silu(inputs["z"])
    with torch.no_grad():
        y = selective_scan(**bare, form=form)
    assert relative_error(y, expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 8, 37])
@pytest.mark.parametrize("form", ["reference", "eager", "static"])
def test_gradients_agree_with_autograd_through_the_paper(form: ScanForm, length: int, reverse: bool) -> None:
    inputs = {name: v.requires_grad_() for name, v in scan_inputs(length).items()}
    weight = torch.randn(2, length, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.autograd.grad((oracle(inputs, reverse) * weight).sum(), list(inputs.values()))
    y = selective_scan(**inputs, form=form, reverse=reverse)
    gradients = torch.autograd.grad((y * weight).sum(), list(inputs.values()))
    for name, gradient, wanted in zip(inputs, gradients, expected, strict=True):
        assert relative_error(gradient, wanted) < FLOAT64_TOLERANCE, name


def test_float32_gradients_of_the_training_form() -> None:
    inputs = {name: v.requires_grad_() for name, v in scan_inputs(201).items()}
    expected = torch.autograd.grad(oracle(inputs).sum(), list(inputs.values()))
    single = {name: v.detach().float().requires_grad_() for name, v in inputs.items()}
    gradients = torch.autograd.grad(selective_scan(**single).sum(), list(single.values()))
    for name, gradient, wanted in zip(inputs, gradients, expected, strict=True):
        assert relative_error(gradient, wanted) < FLOAT32_TOLERANCE, name


def test_training_form_keeps_no_tensor_of_all_states() -> None:
    inputs = {name: v.requires_grad_() for name, v in to_float32(scan_inputs(200, 1, 32, 16)).items()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        selective_scan(**inputs)
    all_states = 4 * 200 * 32 * 16
    assert sum(kept.values()) < all_states  # a loop under autograd keeps 5 of them


def test_mixed_precision_does_not_round_the_state() -> None:
    inputs = to_float32(scan_inputs(201))
    plain = selective_scan(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(selective_scan(**inputs), plain)
        half = selective_scan(**inputs | {"x": inputs["x"].bfloat16()})
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("form", ["eager", "static"])
def test_streaming_equals_the_whole_sequence(form: ScanForm) -> None:
    frames = 2000
    inputs = to_float32(scan_inputs(frames, batch=2))
    timed = {name: v for name, v in inputs.items() if v.ndim == 3}
    fixed = {name: v for name, v in inputs.items() if v.ndim < 3 and name != "A"}
    state = torch.zeros(2, 4, 5)
    outputs = []
    with scan_form(form), torch.no_grad():
        whole = selective_scan(**inputs)
        for t in range(frames):
            now = {name: v[:, t] for name, v in timed.items() if name != "A"}
            y, state = selective_scan_step(state, A=inputs["A"], **now, **fixed)
            outputs.append(y)
    assert relative_error(torch.stack(outputs, 1), whole.double()) < STREAM_TOLERANCE


def test_softplus_is_exact_at_both_ends() -> None:
    values = torch.cat([torch.linspace(-85, 30, 4001), torch.tensor([-100.0, -1e4, 88.0, 100.0, 1000.0])])
    expected = torch.logaddexp(values.double(), torch.zeros(()).double())
    error = (exportable_softplus(values).double() - expected).abs()
    assert float((error / expected.clamp(min=1e-37)).max()) < SOFTPLUS_TOLERANCE


def test_softplus_has_a_gradient_at_zero() -> None:
    values = torch.tensor([-20.0, -1.0, 1.0, 50.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(exportable_softplus(values).sum(), values)
    torch.testing.assert_close(gradient, torch.sigmoid(values.detach()))


def test_form_is_chosen_for_the_block_only() -> None:
    assert current_lowering().scan == "eager"
    with scan_form("static"):
        with pytest.raises(UserError), scan_form("onnx"):
            selective_scan(**scan_inputs(2), form="loop")  # type: ignore[arg-type]
        assert current_lowering().scan == "static"
    assert current_lowering().scan == "eager"


def test_unknown_form_lists_the_known() -> None:
    with pytest.raises(UserError, match="reference, eager, onnx, static"), scan_form("tflite"):  # type: ignore[arg-type]
        pass
    with pytest.raises(UserError, match="no scan form 'loop'"):
        selective_scan(**scan_inputs(2), form="loop")  # type: ignore[arg-type]


class Layer(torch.nn.Module):
    """A layer as a model has it: parameters, a call, and no word about formats."""

    def __init__(self, inputs: Inputs, reverse: bool = False) -> None:
        super().__init__()
        self.A, self.D, self.bias = (
            torch.nn.Parameter(inputs[name].float()) for name in ("A", "D", "dt_bias")
        )
        self.reverse = reverse

    def forward(
        self, x: torch.Tensor, dt: torch.Tensor, B: torch.Tensor, C: torch.Tensor, z: torch.Tensor
    ) -> torch.Tensor:
        return selective_scan(x, dt, self.A, B, C, self.D, z, self.bias, reverse=self.reverse)


def timed(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(inputs[name].float() for name in ("x", "dt", "B", "C", "z"))


def exported(layer: Layer, example: tuple[torch.Tensor, ...], dynamic: bool = False) -> Any:
    pytest.importorskip("onnxscript")
    sizes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=10_000)}
    shapes = dict.fromkeys(("x", "dt", "B", "C", "z"), sizes) if dynamic else None
    with scan_form("onnx"), torch.no_grad():
        program = torch.onnx.export(layer, example, dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    return program.model_proto


def ort_runs(model: Any, example: tuple[torch.Tensor, ...]) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    output: np.ndarray = session.run(None, {n: v.numpy() for n, v in zip(names, example, strict=True)})[0]
    return output


def body_operators(model: Any) -> list[str]:
    (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
    (body,) = [a.g for a in scan.attribute if a.name == "body"]
    return [node.op_type for node in body.node]


# The exporter's own notices about its internals and about Python's pytree registry.
EXPORT_NOTICES = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@EXPORT_NOTICES
@pytest.mark.parametrize(
    ("batch", "reverse", "body"),
    [
        (1, False, ["Mul", "Exp", "Mul", "Gemm", "MatMul"]),
        (1, True, ["Mul", "Exp", "Mul", "Gemm", "MatMul"]),
        (2, True, ["Mul", "Exp", "Mul", "MatMul", "Add", "MatMul"]),
    ],
)
def test_onnx_is_one_scan_and_right(batch: int, reverse: bool, body: list[str]) -> None:
    inputs = scan_inputs(201, batch)
    model = exported(Layer(inputs, reverse), timed(inputs))
    assert body_operators(model) == body
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Scan"] == 1
    assert operators["Softplus"] == 0  # one number at a time in ONNX Runtime
    assert len(model.graph.node) <= 36
    assert relative_error(ort_runs(model, timed(inputs)), oracle(inputs, reverse)) < FLOAT32_TOLERANCE


@pytest.fixture(scope="module")
def dynamic_scan() -> Any:
    """A scan for any batch and length."""
    return exported(Layer(scan_inputs(50, 3)), timed(scan_inputs(50, 3)), dynamic=True)


@EXPORT_NOTICES
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (3, 67), (2, 1000), (1, 4000)])
def test_onnx_with_dynamic_batch_and_length(batch: int, length: int, dynamic_scan: Any) -> None:
    inputs = scan_inputs(50, 3) | {
        name: v for name, v in scan_inputs(length, batch, seed=length).items() if v.ndim == 3
    }
    assert relative_error(ort_runs(dynamic_scan, timed(inputs)), oracle(inputs)) < FLOAT32_TOLERANCE


@EXPORT_NOTICES
def test_onnx_survives_extreme_steps() -> None:
    inputs = scan_inputs(67, 1)
    inputs["dt"][0, ::3] = torch.tensor([-100.0, -30.0, 100.0, 1000.0, 5.0]).double()
    model = exported(Layer(inputs), timed(inputs))
    assert relative_error(ort_runs(model, timed(inputs)), oracle(inputs)) < FLOAT32_TOLERANCE


def test_static_graph_uses_plain_operations_only() -> None:
    inputs = scan_inputs(67, 1)
    with scan_form("static"), torch.no_grad():
        program = torch.export.export(Layer(inputs, reverse=True), timed(inputs))
    plain = "abs add cat exp log matmul mul neg pad relu reshape select silu slice sub sum t zeros_like"
    used = {str(n.target).split(".")[1] for n in program.graph.nodes if n.op == "call_function"}
    assert used <= set(plain.split())
    assert relative_error(program.module()(*timed(inputs)).detach(), oracle(inputs, True)) < FLOAT32_TOLERANCE


def test_exporting_without_a_form_says_what_to_do() -> None:
    inputs = scan_inputs(5, 1)
    with pytest.raises(UserError, match=r'with scan_form\("onnx"\)'):
        torch.export.export(Layer(inputs), timed(inputs))


@EXPORT_NOTICES
@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="needs a C compiler")
def test_benchmark_compares_equal_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    results = tmp_path / "scan.json"
    # 72 channels: one full block of the kernel and one that is not. A candidate that is off raises.
    assert scan_limit.main(["--shape", "2,9,72", "--rounds", "2", "--json", str(results)]) == 0
    rows = read_results(results, scan_limit.KIND)["rows"]
    nodes = {row["candidate"]: row.get("nodes") for row in rows}
    assert nodes["ort scan"] < nodes["ort static"]
    assert {row["ratio"] for row in rows if row["candidate"].startswith("c ")} >= {1.0}
    assert "ort scan" in capsys.readouterr().out


def test_benchmark_refuses_a_shape_of_two_numbers() -> None:
    with pytest.raises(SystemExit):
        scan_limit.main(["--shape", "2,9"])
