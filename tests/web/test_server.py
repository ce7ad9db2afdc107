"""What serves the page: the headers that threads need, no file beyond the page's, all kept for later."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.web.page import WEB, found
from web_demo import serve


@contextmanager
def served(*flags: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of serve.py, run as a user runs it, and its process."""
    command = [sys.executable, str(WEB / "serve.py"), "--port", "0", *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def server(vendor: Path, detector: Path) -> Iterator[str]:
    with served("--detector", detector) as (address, _):
        yield address


def fetch(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        return dict(response.headers), response.read()


def connect(address: str) -> socket.socket:
    place = urllib.parse.urlsplit(address)
    return socket.create_connection((place.hostname, place.port), timeout=10)


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
    [
        *("package.json", "node_modules/x", "engine/../serve.py", "serve.py", "%2e%2e/README.md"),
        *("engine/", "x", f"detector/{Path(__file__)}", f"detector//.{Path(__file__)}", "vendor/.native/x"),
    ],
)
def test_the_server_gives_nothing_else(server: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as told:
        fetch(server + path)
    with told.value:
        assert told.value.code == 404


def test_the_server_bears_with_browsers_that_go_away(vendor: Path, detector: Path) -> None:
    with served("--detector", detector) as (address, process):
        stranger = connect(address)
        stranger.sendall(b"GET /vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm HTTP/1.1\r\n\r\n")
        assert stranger.recv(100)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
        stranger.close()
        assert fetch(address)
        time.sleep(0.2)  # for what its thread may say
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_silent_stranger_does_not_stop_https(vendor: Path, detector: Path, tmp_path: Path) -> None:
    pem = tmp_path / "both.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([found("openssl"), *made, "-keyout", pem, "-out", pem], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(pem))
    trusting.check_hostname = False
    with (
        served("--detector", detector, "--certificate", pem) as (address, _),
        connect(address),
        urllib.request.urlopen(address, context=trusting, timeout=10) as response,
    ):
        assert response.status == 200


@pytest.mark.parametrize("port", ["-1", "70000", "http"])
def test_a_port_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as told:
        serve.main([f"--port={port}"])
    assert told.value.code == 2
    assert "--port" in capsys.readouterr().err.splitlines()[-1]


def test_the_lock_file_names_no_registry() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert "resolved" not in text
    assert "integrity" in text
    assert "registry" not in text


def test_the_page_keeps_every_module_for_later() -> None:
    kept = set(re.findall(r'"([\w.-]+)"', (WEB / "service-worker.js").read_text()))
    modules = {p.stem for folder in ("engine", "page") for p in (WEB / folder).glob("*.js")}
    assert modules <= kept
