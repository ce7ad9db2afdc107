"""What serves the page: the headers that threads need, no file beyond the page's, all kept for later."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.page import WEB


@pytest.fixture(scope="session")
def server(vendor: Path, detector: Path) -> Iterator[str]:
    """The address of serve.py, run as a user runs it."""
    command = [sys.executable, str(WEB / "serve.py"), "--port", "0", "--detector", str(detector)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def fetch(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        return dict(response.headers), response.read()


def test_the_server_sends_what_threads_need(server: str) -> None:
    headers, content = fetch(server)
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe-inline|'unsafe-eval'|https?:|\*", policy)
    assert not re.search(rb"<script(?![^>]* src=)|<style| style=| on\w+=|https?://", content)


def test_the_server_compresses_and_says_what_a_file_is(server: str) -> None:
    path = f"{server}vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm"
    headers, content = fetch(path, **{"Accept-Encoding": "gzip, br"})
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("br", "application/wasm")
    assert len(content) < 4 * 2**20  # 14 MB without
    with pytest.raises(urllib.error.HTTPError) as told:
        fetch(path, **{"Accept-Encoding": "gzip, br", "If-None-Match": headers["ETag"]})
    with told.value:
        assert told.value.code == 304


@pytest.mark.parametrize(
    "path",
    ["package.json", "node_modules/x", "engine/../serve.py", "serve.py", "%2e%2e/README.md", "engine/", "x"],
)
def test_the_server_gives_nothing_else(server: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as told:
        fetch(server + path)
    with told.value:
        assert told.value.code == 404


def test_the_lock_file_names_no_registry() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert "resolved" not in text
    assert "integrity" in text
    assert "registry" not in text


def test_the_page_keeps_every_module_for_later() -> None:
    kept = set(re.findall(r'"([\w.-]+)"', (WEB / "service-worker.js").read_text()))
    modules = {p.stem for folder in ("engine", "page") for p in (WEB / folder).glob("*.js")}
    assert modules <= kept
