"""Signing: what is signed opens, whatever was changed since does not, and versions only rise."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.audio import SAMPLE_RATE
from antispoof.errors import EXIT_DONE, UserError
from antispoof.manifest import Manifest, manifest_path
from antispoof.manifest_reader import parse_manifest, read_manifest
from antispoof.signature import PREFIX, public_key_line, read_public_key, signature_path, verifies
from antispoof.speechlike import speech_like_batch
from export.sign import main
from export.signing import public_path
from runtimes import load, score, stream
from runtimes.golden import golden_paths, make_golden

Capture = pytest.CaptureFixture[str]

# RFC 8032, 7.1: public key, message, signature.
VECTORS = {
    "no bytes": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "one byte": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "two bytes": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert main(["new-key", str(tmp_path / "keys" / "release.pem")]) == EXIT_DONE
    return tmp_path / "keys" / "release.pem"


@pytest.fixture
def model(tmp_path: Path, loudness_model: Path) -> Path:
    for path in (loudness_model, manifest_path(loudness_model)):
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path / loudness_model.name


def sign(model: Path, key: Path, *more: object) -> int:
    assert main(["sign", str(model), "--key", str(key), *map(str, more)]) == EXIT_DONE
    return read_manifest(model, public_path(key)).model_version


@pytest.mark.parametrize("name", VECTORS)
def test_published_signatures(name: str) -> None:
    public, message, signature = map(bytes.fromhex, VECTORS[name])
    assert verifies(public, signature, message)
    assert not verifies(public, signature, message + b"x")
    assert not verifies(public, bytes([signature[0] ^ 1]) + signature[1:], message)
    assert not verifies(bytes([public[0] ^ 1]) + public[1:], signature, message)


def test_what_is_signed_opens_and_says_so(model: Path, key: Path, capsys: Capture) -> None:
    assert sign(model, key) == 1
    clips = speech_like_batch(1, SAMPLE_RATE)
    assert load(model, trusted_key=public_path(key)).score(clips) == load(model).score(clips)
    assert main(["verify", str(model), "--trusted-key", str(public_path(key))]) == EXIT_DONE
    assert "loudness, version 1, signed and whole" in capsys.readouterr().out


def test_another_program_verifies_it(model: Path, key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    sign(model, key)
    message = model.with_name("message")
    message.write_bytes(PREFIX + manifest_path(model).read_bytes())
    pem = model.with_name("public")
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", pem], check=True, capture_output=True)
    sig = signature_path(manifest_path(model))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(pem), "-rawin", "-in", str(message)]
    done = subprocess.run([*verify, "-sigfile", str(sig)], capture_output=True, text=True, check=False)
    assert (done.returncode, "Verified" in done.stdout) == (0, True), done.stderr


def test_keys_are_for_their_owner_and_never_replaced(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(read_public_key(public_path(key))) == 32
    before = key.read_bytes()
    with pytest.raises(UserError, match="never replaced"):
        main(["new-key", str(key)])
    key.rename(key.with_name("moved"))
    with pytest.raises(UserError, match="never replaced"):  # nor the public half
        main(["new-key", str(key)])
    assert key.with_name("moved").read_bytes() == before


def test_versions_only_rise(model: Path, key: Path) -> None:
    assert [sign(model, key), sign(model, key), sign(model, key, "--model-version", 7)] == [1, 2, 7]
    assert sign(model, key, "--model-version", 7) == 7  # the same release again
    for wrong, message in ((6, "refuse a lower one"), (0, "takes 1 to"), (2**31, "takes 1 to")):
        with pytest.raises(UserError, match=message):
            sign(model, key, "--model-version", wrong)
    assert read_manifest(model, public_path(key)).model_version == 7


def test_a_new_export_does_not_begin_at_one_again(model: Path, key: Path, loudness_model: Path) -> None:
    sign(model, key, "--model-version", 3)
    shutil.copyfile(manifest_path(loudness_model), manifest_path(model))
    with pytest.raises(UserError, match="--model-version N says"):
        sign(model, key)
    assert sign(model, key, "--model-version", 4) == 4


def test_verify_refuses_an_older_version(model: Path, key: Path) -> None:
    sign(model, key)
    public = str(public_path(key))
    assert main(["verify", str(model), "--trusted-key", public, "--least-version", "1"]) == EXIT_DONE
    with pytest.raises(UserError, match="version 1, older than 2"):
        main(["verify", str(model), "--trusted-key", public, "--least-version", "2"])
    with pytest.raises(UserError, match="--trusted-key names"):
        main(["verify", str(model)])


def test_golden_scores_are_covered(model: Path, key: Path) -> None:
    make_golden(load(model), model.parent)
    sign(model, key)
    assert read_manifest(model).golden_sha256 is not None
    clips = golden_paths(model)[1]
    clips.write_bytes(clips.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="sha256 differs"):
        sign(model, key)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_changed_byte_is_refused(data: st.DataObject, signed: tuple[Path, Path]) -> None:
    model, public = signed
    sidecar = manifest_path(model)
    path = data.draw(st.sampled_from([model, sidecar, signature_path(sidecar), public]))
    content = path.read_bytes()
    where = data.draw(st.integers(0, len(content) - 1))
    changed = bytes([content[where] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(content[:where] + changed + content[where + 1 :])
    try:
        with pytest.raises(UserError) as refused:
            load(model, trusted_key=public)
        assert "\n" not in str(refused.value)
    finally:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, loudness_model: Path) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("signed")
    for path in (loudness_model, manifest_path(loudness_model)):
        shutil.copyfile(path, folder / path.name)
    main(["new-key", str(folder / "key.pem")])
    sign(folder / loudness_model.name, folder / "key.pem")
    return folder / loudness_model.name, folder / "key.pem.pub"


def truncated(model: Path, public: Path) -> None:
    path = signature_path(manifest_path(model))
    path.write_bytes(path.read_bytes()[:-1])


def lengthened(model: Path, public: Path) -> None:
    path = signature_path(manifest_path(model))
    path.write_bytes(path.read_bytes() + b"\n")


def unsigned(model: Path, public: Path) -> None:
    signature_path(manifest_path(model)).unlink()


def another_key(model: Path, public: Path) -> None:
    main(["new-key", str(model.with_name("other.pem"))])
    shutil.copyfile(model.with_name("other.pem.pub"), public)


def keyless(model: Path, public: Path) -> None:
    public.write_bytes(b"")


def weak_key(model: Path, public: Path) -> None:
    public.write_text(public_key_line(bytes(32)))  # a point of small order, for which forgeries are easy


def spare_bits(model: Path, public: Path) -> None:
    line = public.read_text()
    last = line[42]  # of 43 characters; its two lowest bits mean nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    public.write_text(line[:42] + alphabet[alphabet.index(last) ^ 1] + line[43:])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (truncated, "64 bytes"),
        (lengthened, "64 bytes"),
        (unsigned, "is missing; sign the model"),
        (another_key, "not signed by"),
        (keyless, "no public key"),
        (weak_key, "not signed by"),
        (spare_bits, "no public key"),
    ],
)
def test_a_wrong_signature_or_key(harm: object, message: str, model: Path, key: Path) -> None:
    sign(model, key)
    assert callable(harm)
    harm(model, public_path(key))
    with pytest.raises(UserError, match=message):
        load(model, trusted_key=public_path(key))


def test_the_commands_that_score_take_the_key(
    model: Path, key: Path, speech_folder: Path, capsys: Capture
) -> None:
    public, clip = str(public_path(key)), str(speech_folder / "clip0.wav")
    calls = ((score.main, [clip]), (stream.main, ["--wav", clip]))
    for main_of, arguments in calls:
        with pytest.raises(UserError, match="is missing; sign the model"):
            main_of([str(model), *arguments, "--trusted-key", public])
    sign(model, key)
    for main_of, arguments in calls:
        assert main_of([str(model), *arguments, "--trusted-key", public]) == EXIT_DONE


def test_what_cannot_be_signed_is_not_opened_with_a_key(tmp_path: Path, key: Path) -> None:
    for name in ("weights.pth", "model.cached.json"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="a checkpoint has no manifest"):
        load(tmp_path / "weights.pth", trusted_key=public_path(key))
    with pytest.raises(UserError, match="two halves are not signed"):
        stream.main([str(tmp_path / "model.cached.json"), "--wav", "x", "--trusted-key", str(key)])


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None]
)
def test_no_private_key(content: bytes | None, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no private key" if content is not None else "new-key"):
        main(["sign", str(model), "--key", str(path)])


def test_manifests_from_before_signatures_are_read(loudness_model: Path) -> None:
    facts = json.loads(manifest_path(loudness_model).read_text())
    del facts["model_version"], facts["golden_sha256"]
    manifest = parse_manifest(json.dumps(facts).encode(), "old")
    assert (manifest.model_version, manifest.golden_sha256) == (0, None)
    wrongs = {"model_version": (-1, 1.5, True, "1", None, 2**31), "golden_sha256": ("abc", 3, "A" * 64)}
    for name, values in wrongs.items():
        for value in values:
            with pytest.raises(UserError, match=name):
                parse_manifest(json.dumps({**facts, name: value}).encode(), "wrong")


def test_a_version_leaves_the_facts_inside_the_file_alone(loudness_model: Path) -> None:
    manifest: Manifest = read_manifest(loudness_model)
    assert replace(manifest, model_version=3, golden_sha256="0" * 64).facts() == manifest.facts()
