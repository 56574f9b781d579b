"""The conversion engine and the interface of converters.

Nothing heavy is imported before it is used: converters import `datakit.convert.api` for its records alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .api import Converter, DatasetCard, Probe, Problem, SceneRef

if TYPE_CHECKING:
    from .engine import run
    from .registry import installed, load_converter, make_params, param_defaults
    from .report import Report

_LAZY = {
    "run": ".engine",
    "Report": ".report",
    "installed": ".registry",
    "load_converter": ".registry",
    "make_params": ".registry",
    "param_defaults": ".registry",
}

__all__ = [
    "Converter",
    "DatasetCard",
    "Probe",
    "Problem",
    "Report",
    "SceneRef",
    "installed",
    "load_converter",
    "make_params",
    "param_defaults",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
