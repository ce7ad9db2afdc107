"""Embedding: the folder is whole, signed and scores as it says, or there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.errors import EXIT_DONE, CheckFailed, UserError
from antispoof.manifest import manifest_path
from antispoof.manifest_reader import read_manifest
from export import embed, signing
from export.sign import main as sign_main
from runtimes import load
from runtimes.detector_folder import KEY, LIST, check_folder, list_text, read_list
from runtimes.golden import check_golden, golden_clips, golden_paths, read_golden

Capture = pytest.CaptureFixture[str]
NAME = "loudness.onnx"


@pytest.fixture(autouse=True)
def _own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The development key belongs to the folder that one works in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tmp_path: Path, loudness_model: Path) -> Path:
    for path in (loudness_model, manifest_path(loudness_model)):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path / NAME


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, loudness_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    sign_main(["new-key", str(folder / "key.pem")])
    put(loudness_model, folder / "detector", "--key", folder / "key.pem")
    return folder / "detector"


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copied")
    return tmp_path / "copied"


def put(model: Path, place: Path, *more: object) -> None:
    assert embed.main(["web", str(model), "--into", str(place), *map(str, more)]) == EXIT_DONE


def test_the_folder_holds_what_an_app_needs(whole: Path, loudness_model: Path) -> None:
    beside = ("", ".manifest.json", ".manifest.json.sig", ".golden.json", ".golden.f32")
    assert {path.name for path in whole.iterdir()} == {LIST, KEY, *(NAME + end for end in beside)}
    assert (whole / LIST).read_text() == '{"schema": 1, "files": ["loudness.onnx"]}\n'
    assert (whole / NAME).read_bytes() == loudness_model.read_bytes()
    (found,) = check_folder(whole)
    assert (found.manifest.model_version, found.golden.clips) == (1, 5)
    assert check_golden(load(found.path, trusted_key=whole / KEY)) <= found.golden.tolerance
    assert read_manifest(loudness_model).model_version == 0  # the original is as it was


def test_golden_clips_differ_and_one_is_a_short_one_repeated() -> None:
    clips = golden_clips(64_600)
    assert clips.shape == (5, 64_600)
    length = 27_200
    assert (clips[1, length:] == clips[1, : 64_600 - length]).all()
    assert golden_clips(100).shape == (5, 100)


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_refused(data: st.DataObject, whole: Path) -> None:
    path = data.draw(st.sampled_from(sorted(whole.iterdir())))
    content = path.read_bytes()
    where = data.draw(st.integers(0, len(content) - 1))
    changed = bytes([content[where] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(content[:where] + changed + content[where + 1 :])
    try:
        with pytest.raises(UserError) as refused:
            check_folder(whole)
        assert str(whole) in str(refused.value)
        assert "\n" not in str(refused.value)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [LIST, KEY])
def test_every_bit_of_what_is_not_signed(name: str, copied: Path) -> None:
    content = (copied / name).read_bytes()
    for where in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[where] ^= 1 << bit
            (copied / name).write_bytes(changed)
            with pytest.raises(UserError):
                check_folder(copied)
    (copied / name).write_bytes(content)
    check_folder(copied)


@pytest.mark.parametrize("end", ["", ".manifest.json", ".manifest.json.sig", ".golden.json", ".golden.f32"])
def test_a_missing_or_cut_file_is_refused(end: str, copied: Path) -> None:
    path = copied / (NAME + end)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=NAME):
        check_folder(copied)
    path.unlink()
    with pytest.raises(UserError, match=NAME):
        check_folder(copied)


@pytest.mark.parametrize(
    "content",
    [
        *(
            list_text([name])
            for name in ("../x.onnx", "a/b.onnx", "a\\b.onnx", "..", "", ".", "a..onnx", "x\x00", "-x", "é")
        ),
        list_text(["/etc/passwd"]),
        list_text([]),
        list_text([NAME]) + " ",
        list_text([NAME]).replace("1", "2"),
        list_text([NAME]).replace("1", "true"),
        "",
        "[1]",
        "[" * 4000,
        '{"schema": 1}',
        '{"schema": 1, "files": "loudness.onnx"}',
        '{"schema": 1, "files": [1]}',
        "x" * 5000,
    ],
)
def test_a_list_that_leads_elsewhere_or_is_none(content: str, copied: Path) -> None:
    (copied / LIST).write_text(content)
    with pytest.raises(UserError, match=LIST):
        read_list(copied)


def test_versions_rise_and_never_fall(model: Path, tmp_path: Path, whole: Path) -> None:
    place = tmp_path / "detector"
    put(model, place)
    put(model, place, "--force")
    assert check_folder(place)[0].manifest.model_version == 2
    assert check_folder(place, None, lambda name: 2)
    with pytest.raises(UserError, match="version 2 is older than 3"):
        check_folder(place, None, {"loudness": 3}.__getitem__)
    key = str(tmp_path / embed.DEVELOPMENT_KEY)
    sign_main(["sign", str(model), "--key", key, "--model-version", "9"])
    put(model, place, "--force")
    put(model, place, "--force")  # the same release again
    assert check_folder(place)[0].manifest.model_version == 9
    shutil.copyfile(manifest_path(whole / NAME), manifest_path(model))  # released as version 1
    with pytest.raises(UserError, match="holds 9"):
        put(model, place, "--force")


def test_another_key_than_the_apps_is_refused(copied: Path, tmp_path: Path, model: Path) -> None:
    sign_main(["new-key", str(tmp_path / "other.pem")])
    with pytest.raises(UserError, match="another key"):
        check_folder(copied, tmp_path / "other.pem.pub")
    put(model, tmp_path / "forged", "--key", tmp_path / "other.pem")
    (tmp_path / "forged" / KEY).write_bytes((copied / KEY).read_bytes())
    with pytest.raises(UserError, match="not signed by"):
        check_folder(tmp_path / "forged")


def test_golden_scores_beside_the_file_are_checked(model: Path, whole: Path, tmp_path: Path) -> None:
    for source, target in zip(golden_paths(whole / NAME), golden_paths(model), strict=True):
        shutil.copyfile(source, target)
    scores = golden_paths(model)[0]
    facts = json.loads(scores.read_text())
    facts["scores"][2] += 1
    scores.write_text(json.dumps(facts))
    with pytest.raises(CheckFailed, match="golden clip 2"):
        put(model, tmp_path / "detector")
    assert not (tmp_path / "detector").exists()
    assert not list(tmp_path.glob(".partial*"))
    facts["scores"][2] -= 1
    scores.write_text(json.dumps(facts))
    put(model, tmp_path / "detector")
    assert read_golden(tmp_path / "detector" / NAME)[0].scores == tuple(facts["scores"])


def test_a_manifest_without_golden_scores_is_refused(copied: Path, whole: Path) -> None:
    for path in golden_paths(copied / NAME):
        path.unlink()
    signing.sign(copied / NAME, signing.read_key(whole.parent / "key.pem"))
    with pytest.raises(UserError, match="without golden scores"):
        check_folder(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"samples": 16000', '"samples": 960001'), "the core gives 160 to 960000"),
        (('"samples": 16000', '"samples": 159'), "the core gives 160 to 960000"),
        (('"batch": 1', '"batch": 4'), "takes 4 clips at once"),
    ],
)
def test_what_apps_refuse_is_refused_here(
    change: tuple[str, str], message: str, copied: Path, whole: Path
) -> None:
    sidecar = manifest_path(copied / NAME)
    assert change[0] in sidecar.read_text()
    sidecar.write_text(sidecar.read_text().replace(*change))
    signing.sign(copied / NAME, signing.read_key(whole.parent / "key.pem"))
    with pytest.raises(UserError, match=message):
        check_folder(copied)


def test_a_renamed_file_is_embedded_under_its_name(model: Path, tmp_path: Path) -> None:
    renamed = model.rename(tmp_path / "mine.onnx")
    manifest_path(model).rename(manifest_path(renamed))
    put(renamed, tmp_path / "detector")
    (found,) = check_folder(tmp_path / "detector")
    assert found.manifest.file is not None
    assert found.manifest.file.name == "mine.onnx"  # which apps compare


def test_the_key_for_development_is_made_once(model: Path, tmp_path: Path, capsys: Capture) -> None:
    put(model, tmp_path / "one")
    assert "for development only" in capsys.readouterr().err
    made = (tmp_path / embed.DEVELOPMENT_KEY).read_bytes()
    put(model, tmp_path / "two")
    assert (tmp_path / embed.DEVELOPMENT_KEY).read_bytes() == made
    assert (tmp_path / "one" / KEY).read_bytes() == (tmp_path / "two" / KEY).read_bytes()


@pytest.mark.parametrize("system", sorted(embed.PLACES))
def test_the_demos_folder_is_the_default_and_one_owns_gets_advice(
    system: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(embed, "REPOSITORY", tmp_path)
    with pytest.raises(UserError, match="--into names a folder"):
        embed.main([system, str(model)])
    (tmp_path / embed.PLACES[system]).parent.mkdir(parents=True)
    assert embed.main([system, str(model)]) == EXIT_DONE
    assert "To your own" not in capsys.readouterr().out
    assert check_folder(tmp_path / embed.PLACES[system])
    assert embed.main([system, str(model), "--into", "mine"]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert "To your own" in shown
    assert "{{" not in shown
    assert "{folder}" not in shown


def test_a_link_stays_and_what_it_leads_to_is_replaced(model: Path, tmp_path: Path) -> None:
    put(model, tmp_path / "detector")
    (tmp_path / "link").symlink_to("detector")
    put(model, tmp_path / "link", "--force")
    assert (tmp_path / "link").is_symlink()
    assert check_folder(tmp_path / "detector")[0].manifest.model_version == 2


def test_an_interruption_leaves_the_folder_that_was_there(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = tmp_path / "detector", Path.rename
    put(model, place)

    def interrupted(source: Path, target: Path) -> Path:
        if target == place and source.name != "replaced":
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(model, place, "--force")
    assert check_folder(place)[0].manifest.model_version == 1


def test_a_folder_that_the_demo_refuses_is_no_surprise(model: Path, capsys: Capture) -> None:
    assert embed.main(["android", str(model), "--into", "android"]) == EXIT_DONE
    assert "refuses" not in capsys.readouterr().err
    assert embed.main(["ios", str(model), "--into", "ios"]) == EXIT_DONE
    assert "none of these files is coreml: ios_demo refuses the folder" in capsys.readouterr().err


def test_random_weights_are_not_put_into_an_app_unnoticed(
    model: Path, exported_model: Path, capsys: Capture
) -> None:
    assert embed.main(["web", str(model), "--into", "site"]) == EXIT_DONE
    assert "random weights" not in capsys.readouterr().err
    facts = json.loads(manifest_path(model).read_text())
    facts["weights"] = read_manifest(exported_model).weights
    manifest_path(model).write_text(json.dumps(facts))
    assert embed.main(["web", str(model), "--into", "site", "--force"]) == EXIT_DONE
    assert f"{model.name} has random weights" in capsys.readouterr().err


def test_users_mistakes_leave_nothing_behind(model: Path, tmp_path: Path, loudness_model: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    (tmp_path / "m.mlpackage").mkdir()
    shutil.copyfile(model, tmp_path / "bad name.onnx")
    with (tmp_path / "large.onnx").open("wb") as large:
        large.truncate((1 << 29) + 1)
    unmatched = tmp_path / "unmatched.onnx"
    unmatched.write_bytes(model.read_bytes() + b"x")
    shutil.copyfile(manifest_path(model), manifest_path(unmatched))
    cases: tuple[tuple[list[object], str], ...] = (
        (["web", "none.onnx"], "no such model file"),
        (["web", "m.mlpackage"], "do not run on web"),
        (["web", "bad name.onnx"], "no plain file name"),
        (["android", "large.onnx"], "larger than the 512 MiB"),
        (["web", model, loudness_model], "same name"),
        (["web", model, "--into", other], "no folder of embed.py"),
        (["web", model, "--into", other, "--force"], "no folder of embed.py"),
        (["web", model, "--into", "new", "--key", "none.pem"], "new-key none.pem"),
        (["web", unmatched, "--into", "new"], "bytes long where"),
    )
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            embed.main([str(x) for x in arguments])
    assert not (tmp_path / "new").exists()
    assert (other / "mine").read_text() == "mine"
    put(model, tmp_path / "detector")
    with pytest.raises(UserError, match="--force"):
        put(model, tmp_path / "detector")
    (tmp_path / "detector" / LIST).write_text("damaged")
    put(model, tmp_path / "detector", "--force")
    assert check_folder(tmp_path / "detector")
