"""A scene as JSON: every field of the contract, arrays as their type and shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from .read import Scene


def describe_scene(scene: Scene) -> dict[str, Any]:
    """Return the scene's record in the form that `schemas/json/scene.schema.json` describes."""
    return {name: _plain(value) for name, value in scene.record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return value
