"""The models by name: ``create_model("aasist-l")``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from antispoof.errors import UserError, one_line
from antispoof.model_names import MODULES, model_names
from antispoof.models.detector import Detector

Factory = TypeVar("Factory", bound=Callable[..., Detector])

_FACTORIES: dict[str, Callable[..., Detector]] = {}
_SMALL: dict[str, dict[str, Any]] = {}


def register(name: str, **small: Any) -> Callable[[Factory], Factory]:
    """Registers a factory under ``name``; the tests of every model then run on it too.

    Args:
        name: What users call the model.
        **small: The configuration that the tests build, where the default one is too large or
            needs weights from elsewhere.

    Raises:
        ValueError: `antispoof.model_names` has no such name, or has it of another module.
    """

    def add(factory: Factory) -> Factory:
        if name in _FACTORIES:
            raise ValueError(f"two models are called {name!r}")
        if MODULES.get(name) != factory.__module__:
            raise ValueError(f"antispoof/model_names.py does not list {name!r} of {factory.__module__}")
        _FACTORIES[name] = factory
        _SMALL[name] = small
        return factory

    return add


def small_config(name: str) -> dict[str, Any]:
    """Returns the configuration in which tests build the model."""
    _factory(name)
    return dict(_SMALL[name])


def _factory(name: str) -> Callable[..., Detector]:
    """Returns what builds a model, from its module, which need not be imported yet."""
    importlib.import_module(MODULES[name])
    return _FACTORIES[name]


def create_model(name: str, /, **overrides: Any) -> Detector:
    """Builds the model registered as ``name``, randomly initialised from torch's global seed.

    Args:
        name: One of ``model_names()``.
        **overrides: Fields of the model's configuration that differ from its default.

    Raises:
        UserError: The name or a configuration field is unknown, or no network has such a configuration.
    """
    if name not in MODULES:
        raise UserError(f"there is no model {name!r}; there are: {', '.join(model_names())}")
    factory = _factory(name)
    try:
        model = factory(**overrides)
    except TypeError as error:
        if not any(said in str(error) for said in ("unexpected keyword argument", "multiple values")):
            raise
        raise UserError(f"model {name!r}: {error}") from error
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        asked = ", ".join(f"{key}={value}" for key, value in overrides.items())
        raise UserError(f"model {name!r} cannot be built with {asked}: {one_line(error)}") from error
    model.name = name
    model.overrides = overrides
    return model
