"""What tests of the page share: what it loads, a signed detector, and recordings to play to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import soundfile

from antispoof.audio import SAMPLE_RATE, load_audio
from export import embed, sign, to_onnx
from tests.web.clips import CLIPS, as_pcm16
from tests.web.page import REPOSITORY, WEB, found


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The streaming core as WebAssembly, built by its own Makefile."""
    for program in ("make", "clang", "wasm-ld"):
        found(program)
    folder = tmp_path_factory.mktemp("core")
    target = folder / "wasm32" / "spoof_core.wasm"
    subprocess.run(
        ["make", "-s", "-C", str(REPOSITORY / "runtimes" / "native"), f"BUILD={folder}", str(target)],
        check=True,
    )
    return target


@pytest.fixture(scope="session")
def vendor() -> Path:
    """The libraries that the page runs on; skips where they were not fetched."""
    folder = WEB / "vendor"
    if not (folder / "spoof_core.wasm").is_file():
        pytest.skip("needs web_demo/vendor (npm ci && npm run build in web_demo, or make web-test)")
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled detector as an ONNX file."""
    folder = tmp_path_factory.mktemp("web-export")
    assert to_onnx.main(["--out", str(folder)]) == 0
    return folder / "fscnn.onnx"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "release.pem"
    assert sign.main(["new-key", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory, exported: Path, key: Path) -> Path:
    """A detector folder as `antispoof embed web` writes it."""
    folder = tmp_path_factory.mktemp("web") / "detector"
    assert embed.main(["web", str(exported), "--into", str(folder), "--key", str(key)]) == 0
    return folder


@pytest.fixture(scope="session")
def recordings(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Clips as WAV files of 16 bits, by what they are."""
    folder = tmp_path_factory.mktemp("recordings")
    files: dict[str, list[Path]] = {}
    for kind, paths in CLIPS.items():
        for i, path in enumerate(paths):
            file = folder / f"{kind}{i}.wav"
            soundfile.write(file, as_pcm16(load_audio(shared / "audio" / path)), SAMPLE_RATE)
            files.setdefault(kind, []).append(file)
    return files
