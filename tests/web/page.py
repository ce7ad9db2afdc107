"""The page as the tests run it: its modules in node, the whole of it in Chromium.

A test whose program is not there is skipped with the reason. `make web-test` fetches what can be fetched.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
WEB = REPOSITORY / "web_demo"


def found(program: str) -> str:
    """Returns where a program is; skips where it is not."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}")
    return path


def node(script: str, *arguments: object, stdin: str = "") -> str:
    """Runs a script of web_demo/tests and returns what it prints."""
    command = [found("node"), str(WEB / "tests" / script), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def script(modules: dict[str, str], code: str, *arguments: object) -> Any:
    """Runs code in node with names of the page's modules; returns what it prints, read as JSON."""
    imports = [f"import {names} from {json.dumps((WEB / path).as_uri())};" for path, names in modules.items()]
    command = [found("node"), "--input-type=module", "-e", "\n".join([*imports, code])]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def browser(scenario: str, detector: Path, **task: Any) -> dict[str, Any]:
    """Does in Chromium what a scenario of web_demo/tests/browser.mjs says, and checks what holds for all."""
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        pytest.skip("needs web_demo/node_modules (npm ci in web_demo, or make web-test)")
    task |= {"scenario": scenario, "chromium": found("chromium"), "python": sys.executable}
    result = json.loads(
        node("browser.mjs", stdin=json.dumps(task | {"detector": str(detector)}, default=str))
    )
    strangers = [url for url in result["requests"] if not url.startswith((result["url"], "blob:", "data:"))]
    assert not strangers, strangers
    complaints = [
        line for line in result["console"] if "Content Security Policy" in line or line.startswith("error:")
    ]
    assert not complaints, complaints
    return result
