"""The builder of programs that coremltools has."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.mlpackage import import_coremltools


@pytest.fixture(scope="module")
def mb() -> Any:
    import_coremltools()
    from coremltools.converters.mil import Builder

    return Builder
