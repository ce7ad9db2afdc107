"""The parity gate: it passes what was shown, fails what is wrong and says where the trials do not suffice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import CheckFailed, UserError
from antispoof.protocols import BONAFIDE, SPOOF, UNKNOWN, Trial
from antispoof.speechlike import speech_like
from benchmarks import parity
from benchmarks.gate import Rule, judge
from benchmarks.pages.result_tables import RENDERERS
from benchmarks.results_file import read_results
from export import to_onnx
from tests.manifests import copy_model
from tests.test_export import TUNED_FOR_INTEGERS

Floats = NDArray[np.float64]
ALLOWED = 0.003


def trials(count: int) -> tuple[Floats, list[Trial]]:
    """Scores of a detector with an EER of about 2 %, half of the trials bona fide."""
    random = np.random.default_rng(0)
    is_bonafide = np.arange(count) % 2 == 0
    scores = random.normal(np.where(is_bonafide, 2.0, -2.0), 1.0)
    kinds = [(BONAFIDE, UNKNOWN) if one else (SPOOF, "A01") for one in is_bonafide]
    return scores, [Trial(f"clip{index}", *kind) for index, kind in enumerate(kinds)]


def test_the_very_same_scores_pass() -> None:
    scores, listed = trials(100)
    assert judge(scores, scores, listed, Rule(ALLOWED)).word == "PASS"


@pytest.mark.parametrize(
    ("count", "word", "reason"), [(40_000, "PASS", "within the allowed"), (200, "UNDERPOWERED", "200 trials")]
)
def test_a_little_noise_passes_on_many_trials_and_not_on_few(count: int, word: str, reason: str) -> None:
    scores, listed = trials(count)
    noisy = scores + np.random.default_rng(1).normal(0, 0.02, count)
    verdict = judge(scores, noisy, listed, Rule(ALLOWED))
    assert verdict.word == word
    assert reason in verdict.reasons[0]


def test_a_worse_candidate_fails() -> None:
    scores, listed = trials(4_000)
    worse = scores + np.random.default_rng(1).normal(0, 0.6, 4_000)
    verdict = judge(scores, worse, listed, Rule(ALLOWED))
    assert verdict.word == "FAIL"
    assert verdict.flips
    assert {flip.attack for flip in verdict.flips} <= {"-", "A01"}


@pytest.mark.parametrize("step", [-1e-9, 1e-9])
def test_rounding_flips_no_decision(step: float) -> None:
    scores, listed = trials(4_000)
    assert judge(scores, scores + step, listed, Rule(draws=1)).flips == ()


@pytest.mark.parametrize("points", ["0", "nan", "inf"])
def test_what_is_allowed_is_a_number_that_results_can_hold(points: str) -> None:
    flags = ["a", "b", "--audio", "clips", "--protocol", "list", "--allowed-eer-difference", points]
    with pytest.raises(UserError, match="--allowed-eer-difference"):
        parity.main(flags)


def test_a_turned_polarity_fails_and_is_named() -> None:
    scores, listed = trials(4_000)
    verdict = judge(scores, -scores, listed, Rule(ALLOWED))
    assert verdict.word == "FAIL"
    assert any("inverted" in reason for reason in verdict.reasons)


def test_scores_that_go_their_own_way_fail_even_with_the_same_eer() -> None:
    scores, listed = trials(4_000)
    means = [2.0 if trial.label == BONAFIDE else -2.0 for trial in listed]
    other = np.random.default_rng(2).normal(means, 1.0)
    verdict = judge(scores, other, listed, Rule(0.05))
    assert verdict.word == "FAIL"
    assert any("correlat" in reason for reason in verdict.reasons)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_second_model: Path) -> Path:
    """A small model, one that claims other weights, six clips and their labels (which mean nothing)."""
    folder = tmp_path_factory.mktemp("parity")
    for index in range(6):
        soundfile.write(folder / f"{index}.wav", speech_like(index, SAMPLE_RATE), SAMPLE_RATE)
    copy_model(one_second_model, folder / "one.onnx")
    copy_model(one_second_model, folder / "two.onnx", weights_sha256="0" * 64)
    return folder


def run(place: Path, candidate: str, labels: str, *more: str) -> int:
    protocol = place / "labels.tsv"
    rows = [f"{index}.wav\t{label}" for index, label in enumerate(labels.split())]
    protocol.write_text("path\tlabel\n" + "\n".join(rows) + "\n")
    paths = [str(place / "one.onnx"), str(place / f"{candidate}.onnx")]
    return parity.main([*paths, *more, "--audio", str(place), "--protocol", str(protocol), "--no-cache"])


def labels_by_score(place: Path) -> str:
    """Labels that the first model gets right, so that its EER is no more than a half."""
    from antispoof.audio import fit_length, load_audio
    from runtimes import load

    runtime = load(place / "one.onnx")
    count = len(list(place.glob("*.wav")))
    clips = [fit_length(load_audio(place / f"{index}.wav"), 16_000)[None] for index in range(count)]
    order = np.argsort(np.argsort([runtime.score(clip)[0] for clip in clips]))
    return " ".join("bonafide" if rank >= count // 2 else "spoof" for rank in order)


def test_a_file_passes_against_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "one", labels_by_score(place)) == 0
    assert capsys.readouterr().out.startswith("PASS")


def test_several_candidates_must_all_pass_and_stand_in_one_results_file(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = labels_by_score(place)
    out = tmp_path / "parity.json"
    assert run(place, "one", labels, str(place / "two.onnx"), "--json", str(out)) == 1
    printed = capsys.readouterr().out
    words = re.findall(r"^(one|two)\.onnx:\n(\w+)", printed, re.MULTILINE)
    assert words == [("one", "PASS"), ("two", "FAIL")]
    document = read_results(out, parity.KIND)
    assert [row["word"] for row in document["rows"]] == ["PASS", "FAIL"]
    shown = RENDERERS[parity.KIND](document).splitlines()
    assert [line.split(" | ")[2] for line in shown[2:4]] == ["PASS", "FAIL"]
    with pytest.raises(UserError, match="--force"):
        run(place, "one", labels, "--json", str(out))


def test_other_weights_fail_whatever_they_score(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "two", labels_by_score(place)) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("FAIL")
    assert "other weights" in printed


QUIET = 0.003  # a voice across the room: what 8 bits lose first


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, one_second_model: Path) -> Path:
    """The bundled model as it is, with its waveform in 8 bits, and with its score turned round."""
    folder = tmp_path_factory.mktemp("quiet")
    for index in range(24):
        clip = QUIET ** (index % 2) * speech_like(index, SAMPLE_RATE)
        soundfile.write(folder / f"{index}.wav", clip, SAMPLE_RATE, subtype="FLOAT")
    copy_model(one_second_model, folder / "one.onnx")
    write_copies(folder)
    return folder


def write_copies(folder: Path) -> None:
    """Writes what the commands themselves refuse to write."""
    from dataclasses import replace

    import onnx
    from onnx import helper

    from antispoof.manifest_reader import read_manifest
    from antispoof.speechlike import speech_like_batch
    from quantize import onnx_int8, pipeline
    from quantize.recipes import parse_recipe

    manifest = replace(read_manifest(folder / "one.onnx"), file=None, parity=None)
    source = onnx.load(folder / "one.onnx")
    recipe = parse_recipe("w8a8-all")
    clips = speech_like_batch(8, 16_000, seed=100)
    eight_bits = onnx_int8.convert(source, recipe, clips, pipeline.Options("minmax"))
    eight_bits_manifest = replace(manifest, recipe=recipe.name)
    pipeline.write(eight_bits, onnx_int8.PRODUCT, eight_bits_manifest, folder / "eight-bits.onnx")
    for node in source.graph.node:
        node.output[:] = ["right" if name == "score" else name for name in node.output]
    source.graph.node.append(helper.make_node("Neg", ["right"], ["score"], name="turned"))
    pipeline.write(source, onnx_int8.PRODUCT, manifest, folder / "turned.onnx")


@pytest.mark.parametrize(("candidate", "reason"), [("eight-bits", "EER is"), ("turned", "inverted")])
def test_broken_files_of_the_same_weights_fail(
    candidate: str, reason: str, quiet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(quiet, candidate, labels_by_score(quiet)) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("FAIL")
    assert reason in printed


@pytest.mark.slow
def test_a_waveform_in_8_bits_is_refused_before_it_is_written(shared: Path, tmp_path: Path) -> None:
    from quantize import onnx_int8

    to_onnx.main(["--checkpoint", str(shared / "weights" / "AASIST-L.pth"), "--out", str(tmp_path)])
    flags = ["--recipe", "w8a8-all", "--audio", str(shared / "audio")]
    with pytest.raises(CheckFailed, match="w8a8-all changes a score"):
        onnx_int8.main([str(tmp_path / "aasist-l.onnx"), *flags])
    assert not list(tmp_path.glob("*w8a8-all*"))


@pytest.fixture(scope="module")
def published(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published AASIST-L, and what must not take its place."""
    folder = tmp_path_factory.mktemp("published")
    for name, weights in (("one", "AASIST-L.pth"), ("other-weights", "AASIST-L-retrained.pth")):
        flags = ["--model", "aasist-l", "--checkpoint", str(shared / "weights" / weights)]
        to_onnx.main([*flags, "--out", str(folder), "--name", name])
    write_turned(folder)
    write_eight_bit_waveform(folder, shared / "audio")
    write_everything_in_eight_bits(folder, shared / "audio")
    return folder


def write_turned(folder: Path) -> None:
    import onnx
    from onnx import helper

    from antispoof.manifest_reader import read_manifest
    from quantize import onnx_int8, pipeline

    source = onnx.load(folder / "one.onnx")
    for node in source.graph.node:
        node.output[:] = ["right" if name == "score" else name for name in node.output]
    source.graph.node.append(helper.make_node("Neg", ["right"], ["score"], name="turned"))
    pipeline.write(source, onnx_int8.PRODUCT, read_manifest(folder / "one.onnx"), folder / "turned.onnx")


def write_eight_bit_waveform(folder: Path, audio: Path) -> None:
    """Quantizes the layer that hears the waveform by ONNX Runtime's own tool, which has no guard."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    from antispoof.manifest_reader import read_manifest
    from quantize import onnx_int8, pipeline
    from quantize.calibration import CLIPS, calibration_clips

    class Clips(CalibrationDataReader):
        def __init__(self) -> None:
            clips, _ = calibration_clips(str(CLIPS), audio, 64_600)
            self.rest = iter(clips[::8])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            clip = next(self.rest, None)
            return None if clip is None else {"waveform": clip[None]}

    source, target = folder / "one.onnx", folder / "naive.onnx"
    sinc = next(node.name for node in onnx.load(source).graph.node if node.op_type == "Conv")
    quantize_static(source, target, Clips(), nodes_to_quantize=[sinc], per_channel=True)
    manifest = read_manifest(source)
    pipeline.write(onnx.load(target), onnx_int8.PRODUCT, manifest, folder / "eight-bit-waveform.onnx")


def write_everything_in_eight_bits(folder: Path, audio: Path) -> None:
    """Writes what the project's own recipe for it gives, which its command refuses to write."""
    from dataclasses import replace

    import onnx

    from antispoof.manifest_reader import read_manifest
    from quantize import onnx_int8, pipeline
    from quantize.calibration import CLIPS, calibration_clips
    from quantize.recipes import parse_recipe

    recipe = parse_recipe("w8a8-all")
    clips, _ = calibration_clips(str(CLIPS), audio, 64_600)
    model = onnx_int8.convert(onnx.load(folder / "one.onnx"), recipe, clips[::2], pipeline.Options())
    manifest = replace(read_manifest(folder / "one.onnx"), recipe=recipe.name)
    pipeline.write(model, onnx_int8.PRODUCT, manifest, folder / "w8a8-all.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ("eight-bit-waveform", "this is no copy"),
        ("w8a8-all", "this is no copy"),
        ("turned", "look inverted"),
        ("other-weights", "made from other weights"),
    ],
)
def test_what_must_not_replace_the_published_aasist_l_fails_on_real_speech(
    candidate: str, reason: str, shared: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--audio", str(shared / "audio"), "--protocol", str(shared / "audio" / "manifest.tsv")]
    flags += ["--split", "dev", "--split", "test", "--cache", str(published / "memory")]
    assert parity.main([str(published / "one.onnx"), str(published / f"{candidate}.onnx"), *flags]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("FAIL")
    assert reason in printed


@pytest.mark.slow
@pytest.mark.parametrize("model", TUNED_FOR_INTEGERS)
def test_the_bundled_integers_may_stand_in_for_the_float_detector(
    model: str, shared: Path, tmp_path: Path
) -> None:
    from quantize import onnx_int8

    out, audio = ["--model", model, "--out", str(tmp_path)], ["--audio", str(shared / "audio")]
    assert to_onnx.main(out) == 0
    assert to_onnx.main(["--checkpoint", "qat", "--name", f"{model}-qat", *out]) == 0
    assert onnx_int8.main([str(tmp_path / f"{model}-qat.onnx"), *audio]) == 0
    files = [str(tmp_path / name) for name in (f"{model}.onnx", f"{model}-qat.w8a8-rr.onnx")]
    trials = ["--protocol", str(shared / "audio" / "manifest.tsv"), "--no-cache"]
    assert parity.main([*files, "--other-weights", *audio, *trials]) == 0
