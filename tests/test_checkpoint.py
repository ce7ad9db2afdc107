"""Checkpoints: read without running them, loaded whole or refused with the reason."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from argparse import Namespace
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antispoof.checkpoint import load_model, read_checkpoint, save_checkpoint, weights_hash
from antispoof.errors import UserError
from antispoof.formats import format_named
from antispoof.manifest import Calibration, Threshold
from antispoof.models import Detector, create_model
from antispoof.pretrained import load_pretrained
from export.pipeline import describe


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(0)
    return create_model("aasist-l").eval()


def same(first: Detector, second: Detector) -> bool:
    return weights_hash(first) == weights_hash(second)


def test_saved_weights_come_back_with_model_and_configuration(tmp_path: Path) -> None:
    model = create_model("aasist-l", clip_samples=24_000)
    path = tmp_path / "short.safetensors"
    save_checkpoint(model, path, licence="MIT")
    loaded = load_model(path)
    assert (loaded.name, loaded.clip_samples, loaded.training) == ("aasist-l", 24_000, False)
    assert same(loaded, model)
    assert read_checkpoint(path).metadata["licence"] == "MIT"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "optimizer": {"lr": 1}, "epoch": 3},
        lambda state: {"model_state_dict": state, "epoch": 3},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in state.items()}},
        lambda state: {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}},
        lambda state: {"state_dict": under("net.", state), "hyper_parameters": {"lr": 1e-3}},
        lambda state: {"state_dict": {**under("detector.net.", state), "criterion.weight": torch.ones(2)}},
        lambda state: {**state, "train_loss.weight": torch.ones(2), "val_acc.tp": torch.tensor(3)},
        lambda state: {
            "state_dict": state,
            "args": Namespace(lr=1e-3, out=Path("run"), on=PureWindowsPath("c:/run"), seen=np.arange(3)),
            "eer": np.float64(0.1),
            "curve": np.ones((2, 3), np.float32),
            "names": np.array(["a", Path("b")], dtype=object),
        },
    ],
    ids=[
        *("plain", "lightning", "trainer", "data-parallel", "averaged", "compiled"),
        *("another name", "beside a loss", "beside a metric", "research"),
    ],
)
def test_what_trainers_wrap_around_weights_is_recognised(wrap, model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(model.state_dict()), path)
    loaded = load_model(path)
    assert loaded.name == "aasist-l"
    assert same(loaded, model)


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "pwned"
    torch.save({"weights": Attack(target)}, path)
    with pytest.raises(UserError, match="would run code"):
        load_model(path)
    path.write_bytes(pickle.dumps(Attack(target)))
    with pytest.raises(UserError):
        load_model(path)
    assert not target.exists()


class Called:
    """A pickle that calls what a module holds."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments

    def dump(self) -> bytes:
        opened = f"c{self.module}\n{self.name}\n".encode()
        return b"\x80\x02" + opened + pickle.dumps(self.arguments, 2)[2:-1] + b"R."


@pytest.mark.parametrize(
    "call",
    [
        Called("os", "mkdir", "pwned"),
        Called("posix", "mkdir", "pwned"),
        Called("pathlib", "os.mkdir", "pwned"),
        Called("pathlib", "Path.mkdir", "pwned"),
        Called("argparse", "_os.mkdir", "pwned"),
        Called("argparse", "FileType", "w"),
        Called("argparse", "Namespace.__init__.__globals__", "w"),
        Called("builtins", "eval", "__import__('os').mkdir('pwned')"),
        Called("builtins", "getattr", "x", "y"),
        Called("numpy.testing._private.utils", "runstring", "__import__('os').mkdir('pwned')", {}),
        Called("numpy", "fromfile", "/dev/zero"),
        Called("numpy", "load", "x", None, True),
        Called("numpy", "memmap", "pwned", "uint8", "w+", 0, 8),
        Called("numpy.core.multiarray", "fromfile", "/dev/zero"),
        Called("antispoof.checkpoint", "Unread"),
    ],
    ids=lambda call: f"{call.module}.{call.name}",
)
def test_nothing_else_is_admitted_beside_weights(
    call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1)}, "plain.pth")
    with zipfile.ZipFile("plain.pth") as plain, zipfile.ZipFile("evil.pth", "w") as evil:
        for name in plain.namelist():
            evil.writestr(name, call.dump() if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(UserError, match="would run code"):
        read_checkpoint("evil.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth", "plain.pth"]


@pytest.mark.parametrize("around", [lambda evil: np.array([evil], object), lambda evil: Namespace(a=evil)])
def test_an_attack_inside_what_is_admitted_does_not_run(around, tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "pwned"
    torch.save({"state_dict": {}, "note": around(Attack(target))}, path)
    with pytest.raises(UserError, match="would run code"):
        read_checkpoint(path)
    assert not target.exists()


def test_what_is_admitted_is_not_kept(model: Detector, tmp_path: Path) -> None:
    path, before = tmp_path / "arrays.pth", set(torch.serialization.get_safe_globals())
    torch.save({name: value.numpy() for name, value in model.state_dict().items()}, path)
    with pytest.raises(UserError, match="not a state_dict"):
        read_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before  # torch lists them in any order


def endless() -> dict:
    content: dict = {}
    content["model"] = content
    return content


def broken_files(model: Detector) -> dict[str, tuple[str, bytes | dict]]:
    state = model.state_dict()
    first = next(iter(state))
    without = {k: v for k, v in state.items() if k != first}
    return {
        "no weights": ("not a state_dict", {"epoch": 3, "note": "x"}),
        "a missing weight": (f"lacks {first}", without),
        "an unknown weight": ("unknown extra.weight", {**state, "extra.weight": torch.zeros(3)}),
        "a wrong shape": (rf"{first} of shape \(3,\)", {**state, first: torch.zeros(3)}),
        "NaN": ("NaN", {**state, "classify.bias": torch.tensor([0.0, float("nan")])}),
        "a number that float32 does not hold": (
            "beyond float32",
            {**state, "classify.bias": torch.tensor([0.0, 1e300], dtype=torch.float64)},
        ),
        "8-bit floats": ("float8", {**state, first: state[first].to(torch.float8_e5m2)}),
        "complex numbers": ("complex64", {**state, first: state[first].to(torch.complex64)}),
        "a sparse array": ("sparse", {**state, first: state[first].to_sparse()}),
        "a shape and no numbers": ("stored as nothing", {**state, first: state[first].to("meta")}),
        "one number for a billion": ("more numbers", {**state, first: torch.zeros(1).expand(1 << 30)}),
        "bare integers": (f"{first} in int8", {**state, first: state[first].to(torch.int8)}),
        "itself": ("holds itself", endless()),
        "endless names": ("or longer", {**state, "a." * 200: state[first]}),
        "countless names": ("more weights", {str(n): state[first] for n in range(5_001)}),
        "two sets": ("several sets", {"state_dict": state, "ema": state}),
        "a web page": ("web page", b"<!DOCTYPE html><html><body>404</body></html>"),
        "an LFS pointer": ("git lfs pull", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "nothing": ("empty", b""),
        "noise": ("not a PyTorch checkpoint", bytes(range(256)) * 8),
        "a tensor": ("holds a Tensor", torch.zeros(3)),
    }


@pytest.mark.parametrize("case", sorted(broken_files(create_model("aasist-l"))))
def test_a_broken_checkpoint_is_refused_with_its_reason(case: str, model: Detector, tmp_path: Path) -> None:
    message, content = broken_files(model)[case]
    path = tmp_path / "broken.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        load_model(path, "aasist-l")
    assert "\n" not in str(error.value)


def test_another_models_weights_are_told_apart(model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "light.pth"
    torch.save(model.state_dict(), path)
    with pytest.raises(UserError, match="not a checkpoint of aasist:"):
        load_model(path, "aasist")
    torch.save({"conv.weight": torch.zeros(4)}, path)
    with pytest.raises(UserError, match="of none of the models"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda net: dict(list(net.items())[1:]),
            r"nearest is aasist-l, .* lacks spectral_position .*net\.\*",
        ),
        (lambda net: {**net, "head.weight": torch.ones(2, 3)}, "nearest is aasist-l, .* unknown head.weight"),
        # As large as this, what a loss holds may be what the score is made of.
        (lambda net: {**net, "loss.fc.weight": torch.ones(2, 160)}, "aasist-l, .* unknown loss.fc.weight"),
        (lambda net: {**net, "loss.center": torch.ones(1, 160)}, "aasist-l, .* unknown loss.center"),
        (lambda net: {**net, "spectral_position": torch.ones(1)}, "unknown spectral_position"),
        (
            lambda net: {**net, **{name.replace("net.", "ema."): value for name, value in net.items()}},
            r"several sets of its weights \(ema\.\*, net\.\*\)",
        ),
        (
            lambda net: {name.removeprefix("net.cl"): value for name, value in net.items()},
            "lacks classify.weight, classify.bias; it has the unknown assify.weight, assify.bias",
        ),
    ],
    ids=["less", "more", "classifier", "centre", "both", "twice", "renamed"],
)
def test_what_nearly_fits_a_model_says_what_is_missing_or_too_much(
    change, message: str, model: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "near.ckpt"
    torch.save({"state_dict": change(under("net.", model.state_dict()))}, path)
    with pytest.raises(UserError, match=message) as error:
        load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["LIGHT.PTH", "Light.SafeTensors"])
def test_capitals_in_a_files_name_do_no_harm(name: str, model: Detector, tmp_path: Path) -> None:
    save = torch.save if name.endswith("PTH") else safetensors.torch.save_file
    save(model.state_dict(), tmp_path / name)
    assert load_model(tmp_path / name).name == "aasist-l"


def test_a_file_that_names_its_model_is_not_loaded_as_another(model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(model, path)
    with pytest.raises(UserError, match="holds the weights of aasist-l, not of aasist"):
        load_model(path, "aasist")


def test_weights_of_fewer_and_more_bits_become_float32(model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "cast.pth"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
        torch.save(cast, path)
        for name, value in load_model(path).state_dict().items():
            assert torch.equal(value, cast[name].to(value.dtype))


@pytest.mark.parametrize("config", ["[1]", "{", "null", "[" * 100_000])
def test_lying_metadata_is_refused(config: str, model: Detector, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, metadata={"model": "aasist-l", "config": config})
    with pytest.raises(UserError, match="configuration"):
        load_model(path)


@pytest.mark.parametrize("field", ["self", "name", "path", "nope", "clip_samples"])
def test_a_configuration_that_no_network_has_is_refused(field: str, model: Detector, tmp_path: Path) -> None:
    path, config = tmp_path / "lie.safetensors", json.dumps({field: 10**15})
    safetensors.torch.save_file(model.state_dict(), path, metadata={"model": "aasist-l", "config": config})
    with pytest.raises(UserError, match=field):
        load_model(path)


@pytest.mark.parametrize("name", ["missing.pth", "folder.pth", "weights.zip"])
def test_what_is_no_checkpoint_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "weights.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=name):
        load_model(tmp_path / name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 4000), flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 255)), max_size=6)
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_read_or_refused_and_never_crash(
    suffix: str, cut: int, flips: list[tuple[int, int]], tmp_path: Path
) -> None:
    path = tmp_path / f"damaged{suffix}"
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = bytearray(path.read_bytes())
    for position, mask in flips:
        content[position % len(content)] ^= mask
    path.write_bytes(content[: len(content) - cut % len(content)])
    try:
        tensors = read_checkpoint(path).tensors
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the other outcome is as good
    else:
        assert all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point())


# ---- what weights know of decisions

DECISIONS = {
    "calibration": {"scale": 2.0, "offset": -0.5, "data": "dev"},
    "thresholds": [{"name": "eer", "score": 0.25, "data": "dev"}],
}


def test_thresholds_travel_from_weights_to_what_is_exported(tmp_path: Path) -> None:
    save_checkpoint(create_model("fscnn"), tmp_path / "mine.safetensors", decisions=json.dumps(DECISIONS))
    weights = load_pretrained(str(tmp_path / "mine.safetensors"))
    manifest = describe(weights, format_named("onnx"), batch=1, precision="float32", recipe="none")
    assert manifest.calibration == Calibration(2.0, -0.5, "dev")
    assert manifest.thresholds == (Threshold("eer", 0.25, "dev"),)


@pytest.mark.parametrize(
    "damage",
    [
        "nothing",
        "[]",
        "{}",
        json.dumps(DECISIONS | {"thresholds": [1]}),
        json.dumps(DECISIONS | {"calibration": {"scale": -1, "offset": 0, "data": ""}}),
        json.dumps(DECISIONS).replace("0.25", "1e999"),
        json.dumps(DECISIONS).replace("0.25", "1" + 400 * "0"),
        "[" * 100_000,
    ],
)
def test_damaged_thresholds_get_one_line(damage: str, tmp_path: Path) -> None:
    save_checkpoint(create_model("fscnn"), tmp_path / "mine.safetensors", decisions=damage)
    with pytest.raises(UserError) as caught:
        load_pretrained(str(tmp_path / "mine.safetensors"))
    assert "\n" not in str(caught.value)
