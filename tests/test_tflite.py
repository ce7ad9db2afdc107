"""TFLite export: right scores, one piece for XNNPACK, the same bytes again; and LiteRT behind a manifest."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof.audio import fit_length, load_audio
from antispoof.errors import CheckFailed, UserError
from antispoof.formats import format_named
from antispoof.lowering import Lowering, current_lowering, lowering
from antispoof.manifest import FACTS_KEY, describe_file, manifest_path
from antispoof.manifest_reader import read_manifest
from antispoof.models import Detector, DetectorOutput, create_model, freeze, model_names, small_config
from antispoof.models.layers import primitives
from antispoof.models.layers.graph import GraphPool, rank_descending
from antispoof.models.layers.residual import WaveformEncoder, strongest
from antispoof.speechlike import speech_like_batch
from export import tflite_file, to_tflite
from export.graph import ScoreGraph
from runtimes import litert, load, tflite_bytes
from runtimes.base import Runtime
from runtimes.eager import EagerRuntime

REPOSITORY = Path(__file__).resolve().parents[1]
PARITY_TOLERANCE = 1e-4  # see antispoof.formats
ROUNDING = 2e-6  # a few roundings of float32 at the size of 4
AASIST_L_KIB = 450  # a plain conversion has 565, and 33 partitions instead of one
REFUSED_BY_XNNPACK = {
    "SELECT",
    "SELECT_V2",
    "GREATER",
    "GREATER_EQUAL",
    "EQUAL",
    "CAST",
    "TOPK_V2",
    "GATHER_ND",
}
MOST_PIECES = 6


@pytest.fixture(scope="module")
def export_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """AASIST-L with random weights, exported as users do, and what the command said."""
    folder = tmp_path_factory.mktemp("tflite")
    command = [sys.executable, "export/to_tflite.py", "--model", "aasist-l", "--checkpoint", "random"]
    done = subprocess.run(
        [*command, "--out", str(folder)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return folder / "aasist-l.tflite", done


@pytest.fixture(scope="module")
def exported(export_run: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    path, done = export_run
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def runtime(exported: Path) -> Runtime:
    return load(exported)


def flatbuffer(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(path.read_bytes()), 0))


def copy_of(exported: Path, folder: Path, content: bytes | None = None, **edits: Any) -> Path:
    """Returns a copy of the file whose manifest vouches for it, with fields of the manifest changed."""
    path = folder / exported.name
    path.write_bytes(exported.read_bytes() if content is None else content)
    facts = json.loads(manifest_path(exported).read_text())
    facts["file"] = {key: getattr(describe_file(path), key) for key in ("name", "bytes", "sha256")}
    for key, value in edits.items():
        section, _, field = key.partition("__")
        facts[section] = {**facts[section], field: value} if field else value
    manifest_path(path).write_text(json.dumps(facts))
    return path


# The file


def test_scores_are_those_of_pytorch(runtime: Runtime) -> None:
    torch.manual_seed(0)  # as --checkpoint random
    reference = EagerRuntime(create_model("aasist-l"), Path("aasist-l"))
    clips = speech_like_batch(3, seed=100)
    np.testing.assert_allclose(runtime.score(clips), reference.score(clips), atol=PARITY_TOLERANCE, rtol=0)


def test_xnnpack_takes_the_whole_of_aasist_l(exported: Path) -> None:
    assert litert.partitions(exported) == litert.Partitions(1, 0)


def test_aasist_l_is_small_and_clean(exported: Path) -> None:
    assert exported.stat().st_size <= AASIST_L_KIB * 1024
    found = tflite_file.operations(flatbuffer(exported))
    assert not REFUSED_BY_XNNPACK & set(found)
    assert found["ELU"] == found["LEAKY_RELU"] > 13  # 13 activations, the first three of them in tiles


def test_no_axis_is_longer_than_neural_engines_take_but_the_input(exported: Path) -> None:
    (graph,) = flatbuffer(exported).subgraphs
    longest = max(max(tensor.shape, default=0) for tensor in graph.tensors if 64_600 not in tensor.shape)
    assert longest <= 16_384


def test_constants_are_aligned(exported: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(exported.read_bytes(), 0)
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    starts = [table.Vector(field) for table in tables if (field := table.Offset(4))]
    assert len(starts) > 100
    assert not [start for start in starts if start % tflite_bytes.ALIGNMENT]


def test_the_file_knows_what_its_manifest_knows(exported: Path) -> None:
    model = flatbuffer(exported)
    (entry,) = (x for x in model.metadata if x.name.decode() == FACTS_KEY)
    embedded = json.loads(bytes(model.buffers[entry.buffer].data))
    beside = json.loads(manifest_path(exported).read_text())
    del beside["file"], beside["parity"], beside["model_version"], beside["golden_sha256"]
    assert embedded == beside
    assert beside["tools"]["litert-torch"]


def test_nothing_in_the_file_tells_of_the_machine(exported: Path) -> None:
    content = exported.read_bytes()
    for trace in (str(Path.cwd()).encode(), b".py", b"torch.nn", b"antispoof.models"):
        assert trace not in content


def test_layers_can_be_found_by_name(exported: Path) -> None:
    (graph,) = flatbuffer(exported).subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    for layer in ("encoder.sinc", "encoder.2.conv1", "spectral_pool.gate", "classify"):
        assert any(name.startswith(f"{layer}:") for name in names), layer


def test_the_command_reports_and_logs_nothing(
    export_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = export_run
    assert done.stderr == ""
    for fact in ("KiB", "1 partition, 0 operations outside", "parity"):
        assert fact in done.stdout


def test_nothing_is_overwritten_unless_forced(exported: Path) -> None:
    flags = ["--model", "aasist-l", "--checkpoint", "random", "--out", str(exported.parent)]
    with pytest.raises(UserError, match="--force"):
        to_tflite.main(flags)


class Tiny(Detector):
    """An encoder and a pool, for a test that has to convert anew."""

    clip_samples = 1_500

    def __init__(self) -> None:
        super().__init__()
        self.encoder = WaveformEncoder(6, 129, (2, 2))
        self.pool = GraphPool(2, 0.5)

    def forward(self, waveform: torch.Tensor) -> DetectorOutput:
        nodes = self.pool(strongest(self.encoder(waveform), dim=2).transpose(1, 2))
        return DetectorOutput(nodes.mean(dim=1), nodes[:, 0])


def test_two_exports_are_byte_identical(exported: Path) -> None:
    torch.manual_seed(0)
    graph, manifest = ScoreGraph(Tiny().eval()), read_manifest(exported)
    one, two = (tflite_file.embed(tflite_file.convert(graph), manifest) for _ in range(2))
    assert one == two


def test_a_file_that_scores_otherwise_is_refused_and_leaves_nothing(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert_wrongly(graph: ScoreGraph) -> object:
        model = flatbuffer(exported)
        model.metadata.pop()
        largest = max(model.buffers, key=lambda b: 0 if b.data is None else len(b.data))
        largest.data = (largest.data.view(np.float32) * np.float32(1.5)).view(np.uint8)
        return model

    monkeypatch.setattr(tflite_file, "convert", convert_wrongly)
    with pytest.raises(CheckFailed, match=r"aasist-l\.tflite does not score as PyTorch does"):
        to_tflite.main(["--model", "aasist-l", "--checkpoint", "random", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


# The runtime


def test_any_number_of_clips_and_threads(exported: Path, runtime: Runtime) -> None:
    clips = speech_like_batch(2)
    alone = np.concatenate([runtime.score(clip[None]) for clip in clips])
    np.testing.assert_array_equal(runtime.score(clips), alone)
    np.testing.assert_allclose(load(exported, threads=2).score(clips), alone, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"format": "onnx"}, "onnx file"),
        ({"input__name": "audio"}, "'audio'"),
        ({"output__name": "logits"}, "'logits'"),
        ({"input__samples": 32_000}, "32000"),
        ({"input__batch": 2}, "its manifest says"),
        ({"file__sha256": "0" * 64}, "sha256 differs"),
    ],
)
def test_a_manifest_that_lies_is_caught(
    edit: dict[str, Any], message: str, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(copy_of(exported, tmp_path, **edit))
    assert "\n" not in str(error.value)


def test_a_changed_file_is_not_even_opened(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    shutil.copy(manifest_path(exported), manifest_path(path))
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="sha256 differs"):
        load(path)


@pytest.mark.parametrize("length", [0, 3, 1_000, 300_000])
def test_a_damaged_file_with_an_honest_manifest_gets_one_line(
    length: int, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy_of(exported, tmp_path, exported.read_bytes()[:length])
    with pytest.raises(UserError, match="not a TFLite model") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_several_threads_score_with_one_runtime(runtime: Runtime) -> None:
    clips = speech_like_batch(6)
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda clip: float(runtime.score(clip[None])[0]), clips))
    assert at_once == runtime.score(clips).tolist()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_word_of_the_structure_may_be_wrong(data: st.DataObject, exported: Path) -> None:
    """In this process: what LiteRT makes of wrong offsets and indices would end the tests otherwise."""
    content = bytearray(exported.read_bytes())
    weights = max(flatbuffer(exported).buffers, key=lambda b: 0 if b.data is None else len(b.data))
    structure = content.index(bytes(weights.data))
    where = 4 * data.draw(st.integers(0, structure // 4 - 1))
    content[where : where + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4)]))
    try:
        litert.open_interpreter(bytes(content), threads=1)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - opening is as good an outcome


# The lowering: one network, said in other words


TFLITE = format_named("tflite").lowering


def test_a_lowering_holds_inside_its_block_only() -> None:
    before = current_lowering()
    with lowering(TFLITE):
        assert current_lowering() == TFLITE
    assert current_lowering() == before


@pytest.mark.parametrize("samples", [9_999, 16_000, 30_001])
@pytest.mark.parametrize("tiles", [2, 3, 8])
def test_tiles_of_time_give_the_same_map(samples: int, tiles: int) -> None:
    torch.manual_seed(0)
    # Double precision tells a wrong column from sums in another order, which depends on the width.
    encoder = WaveformEncoder(6, 129, (2, 2, 4)).double().eval()
    waveform = torch.from_numpy(speech_like_batch(1, samples)).double()
    with torch.inference_mode():
        whole = encoder(waveform)
        with lowering(Lowering(time_tiles=tiles)):
            tiled = encoder(waveform)
    torch.testing.assert_close(tiled, whole, atol=1e-13, rtol=0)


def test_an_encoder_may_have_fewer_blocks_than_are_tiled() -> None:
    encoder = WaveformEncoder(6, 129, (4,)).double().eval()
    waveform = torch.from_numpy(speech_like_batch(1, 400)).double()
    with torch.inference_mode(), lowering(Lowering(time_tiles=3)):
        tiled = encoder(waveform)
        with lowering(Lowering()):
            torch.testing.assert_close(tiled, encoder(waveform), atol=1e-13, rtol=0)


def test_selu_without_its_own_operation() -> None:
    x = torch.cat([torch.linspace(-20, 4, 1_001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, -100.0])])
    with lowering(Lowering(elu="unit")):
        torch.testing.assert_close(primitives.selu(x), torch.selu(x), atol=ROUNDING, rtol=0)


def test_comparisons_without_truth_values() -> None:
    # Probabilities as they occur: next to each other, equal, saturated, tiny.
    score = torch.tensor([0.5, 0.5 + 2**-24, 0.5, 1.0, 1.0, 1.0 - 2**-24, 0.0, 1e-37, 2e-37, 0.0])
    score = score[None, :, None]
    native = rank_descending(score)
    assert sorted(native.flatten().tolist()) == list(range(10))
    limits = torch.arange(4.0)[:, None]
    with lowering(Lowering(compare="arithmetic")):
        torch.testing.assert_close(rank_descending(score), native, atol=0, rtol=0)
        equal, below = primitives.is_equal(native, limits), primitives.is_below(native, 3)
    torch.testing.assert_close(equal, primitives.is_equal(native, limits), atol=0, rtol=0)
    torch.testing.assert_close(below, primitives.is_below(native, 3), atol=0, rtol=0)


@pytest.mark.parametrize("name", model_names())
def test_every_model_is_the_same_in_tflites_words(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, **small_config(name)).eval()
    clips = torch.from_numpy(speech_like_batch(1, model.clip_samples))
    with torch.inference_mode():
        expected = model.score(model(clips))
        with lowering(TFLITE):
            freeze(model)
            actual = model.score(model(clips))
    torch.testing.assert_close(actual, expected, atol=PARITY_TOLERANCE, rtol=0)


# With patience, or the real weights


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_model_exports_in_few_pieces(name: str, tmp_path: Path) -> None:
    flags = ["--model", name, "--checkpoint", "random", "--out", str(tmp_path)]
    for key, value in small_config(name).items():
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    assert to_tflite.main(flags) == 0
    assert litert.partitions(tmp_path / f"{name}.tflite").pieces <= MOST_PIECES


@pytest.fixture(
    scope="module",
    params=[pytest.param(("aasist", "AASIST.pth"), marks=pytest.mark.slow), ("aasist-l", "AASIST-L.pth")],
    ids="/".join,
)
def public(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A model's name, and the file with its public weights, verified on real speech."""
    name, checkpoint = request.param
    folder = tmp_path_factory.mktemp("public")
    flags = ["--checkpoint", str(shared / "weights" / checkpoint), "--out", str(folder)]
    assert to_tflite.main([*flags, "--verify-audio", str(shared / "audio" / "asvspoof" / "dev")]) == 0
    return name, folder / f"{name}.tflite"


def differences(public: tuple[str, Path], shared: Path, clips: int | None = None) -> np.ndarray:
    """Returns how far scores of published dev clips are from what the authors' code gives them."""
    name, path = public
    with (shared / "oracles" / "aasist-scores.dev.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rows = rows[:: len(rows) // clips][:clips] if clips else rows
    expected = [float(row[f"{name.replace('-', '_')}_logit_bonafide"]) for row in rows]
    runtime = load(path, threads=2)
    scores = [runtime.score(fit_length(load_audio(shared / "audio" / row["path"]))[None])[0] for row in rows]
    return np.abs(np.array(scores) - expected)


def test_public_weights_equal_the_oracle(public: tuple[str, Path], shared: Path) -> None:
    parity = read_manifest(public[1]).parity
    assert parity is not None
    assert parity.max_difference <= PARITY_TOLERANCE
    found = differences(public, shared, clips=20)
    assert len(found) == 20
    assert found.max() <= PARITY_TOLERANCE


@pytest.mark.slow
def test_public_weights_equal_the_oracle_on_every_dev_clip(public: tuple[str, Path], shared: Path) -> None:
    assert differences(public, shared).max() <= PARITY_TOLERANCE
