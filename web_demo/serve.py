"""Serves the page with the headers that threads, WebAssembly and its own strictness need.

    python web_demo/serve.py                       # http://localhost:8080, for this machine alone
    python web_demo/serve.py --port 9000
    python web_demo/serve.py --host 0.0.0.0 --certificate cert.pem --key key.pem   # for phones, over https

A browser gives the microphone only to https or localhost. A phone on a cable reaches this machine's localhost
after `adb reverse tcp:8080 tcp:8080`, without a certificate.

Needs nothing but Python. Files come compressed where `npm run build` left a compressed copy beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import ssl
import sys
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
DETECTOR = ROOT / "detector"
# What the page consists of; nothing else of this folder is anybody's business. No part of a path is empty or
# begins with a dot: joined to a folder, such a part may lead out of it.
SERVED = re.compile(
    r"/(index\.html|style\.css|icon\.svg|app\.webmanifest|service-worker\.js"
    r"|(engine|page|vendor|detector)(/[\w+-][\w.+-]*)+)?"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
ENCODINGS = {"br": ".br", "gzip": ".gz"}  # best first
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def security_headers(index: str) -> dict[str, str]:
    """Returns the headers of every answer; the policy is the one that ``index`` (index.html) states.

    Cross-origin isolation is what browsers ask for before they give shared memory, hence threads.
    """
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', index)
    if policy is None:
        raise ValueError("index.html states no Content-Security-Policy")
    return {
        "Content-Security-Policy": f"{' '.join(policy[1].split())}; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


class Handler(SimpleHTTPRequestHandler):
    """Answers for the page's files alone, compressed where it can be, with a validator for the next time."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may stay silent

    def __init__(
        self, *args: object, headers: Mapping[str, str], detector: Path = DETECTOR, **kwargs: object
    ) -> None:
        self.extra, self.detector = headers, detector
        super().__init__(*args, directory=str(ROOT), **kwargs)  # type: ignore[arg-type]

    def end_headers(self) -> None:
        """Adds the headers of every answer."""
        for name, value in self.extra.items():
            self.send_header(name, value)
        super().end_headers()

    def do_GET(self) -> None:
        """Sends a file."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Sends the headers of a file."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        file = ROOT / (path.lstrip("/") or "index.html")
        if path.startswith("/detector/"):
            file = self.detector / path.removeprefix("/detector/")
        if not SERVED.fullmatch(path) or not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        encoding = self._encoding(file)
        content = (file.with_name(file.name + ENCODINGS[encoding]) if encoding else file).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        known = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache")  # kept, and asked after: a changed file is never stale
        self.send_header("Vary", "Accept-Encoding")
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", "0" if known else str(len(content)))
        self.end_headers()
        if with_body and not known:
            self.wfile.write(content)

    def _encoding(self, file: Path) -> str | None:
        """Returns the best encoding that the browser takes and a copy no older than the file is there of."""
        accepted = {
            part.partition(";")[0].strip() for part in self.headers.get("Accept-Encoding", "").split(",")
        }
        for name, suffix in ENCODINGS.items():
            copy = file.with_name(file.name + suffix)
            if name in accepted and copy.is_file() and copy.stat().st_mtime >= file.stat().st_mtime:
                return name
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet: who looks at the page is nobody's business either."""


class Server(ThreadingHTTPServer):
    """Bears with browsers that go away, and with strangers."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps quiet where the other side hung up or refused the certificate, and tells of bugs alone."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError, ssl.SSLError)):
            super().handle_error(request, client_address)


def port_number(text: str) -> int:
    """Returns a port."""
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{port} is no port; 0 to 65535 are")
    return port


def parser() -> argparse.ArgumentParser:
    """Returns the command's arguments."""
    p = argparse.ArgumentParser(
        prog="serve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--port", type=port_number, default=8080, metavar="N", help="default 8080; 0: a free one")
    p.add_argument("--host", default="localhost", help="default localhost: this machine alone")
    p.add_argument("--detector", type=Path, default=DETECTOR, metavar="DIR", help="of `antispoof embed web`")
    p.add_argument("--certificate", type=Path, metavar="PEM", help="serve https with it")
    p.add_argument("--key", type=Path, metavar="PEM", help="of the certificate, unless it is in there")
    return p


def open_server(args: argparse.Namespace) -> Server:
    """Returns the server, bound and not yet serving."""
    headers = security_headers((ROOT / "index.html").read_text(encoding="utf-8"))
    server = Server(
        (args.host, args.port), partial(Handler, headers=headers, detector=args.detector.resolve())
    )
    if args.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.certificate, args.key)
        # Each connection shakes hands in its own thread: here, a silent stranger would stop the server.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def missing(detector: Path) -> str | None:
    """Returns what has to be made before the page can run, and how; None where all is there."""
    if not (ROOT / "vendor" / "spoof_core.wasm").is_file():
        return "web_demo/vendor is empty; run `npm ci && npm run build` in web_demo (or `make web`)"
    if not (detector / "detector.json").is_file():
        return f"{detector} holds no detector; run `antispoof embed web FILE` first"
    return None


def main(argv: list[str] | None = None) -> int:
    """Serves until interrupted; returns the exit code."""
    args = parser().parse_args(argv)
    if args.key and not args.certificate:
        print("serve.py: --key belongs to --certificate", file=sys.stderr)
        return 2
    if hint := missing(args.detector):
        print(f"serve.py: {hint}", file=sys.stderr)
        return 2
    try:
        server = open_server(args)
    except OSError as error:
        print(
            f"serve.py: cannot serve on {args.host}:{args.port}: {error.strerror or error}", file=sys.stderr
        )
        return 2
    scheme = "https" if args.certificate else "http"
    print(f"{scheme}://{args.host}:{server.server_address[1]}/", flush=True)
    if args.host not in LOOPBACK and not args.certificate:
        print("serve.py: without https, browsers elsewhere give this page no microphone", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
