"""What is printed beside every number: without it the number cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .aggregate import Average


def settings(
    *,
    metric: str,
    alignment: str,
    averaging: str,
    num_frames: tuple[int, int] | None = None,
    chunking: str = "whole clips",
    mask: str = "known truth",
    max_depth: float | None = None,
    resize: str = "none",
    resolution: str = "as the benchmark",
    uses_true_intrinsics: bool = False,
    result: Average | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collect the settings of a result, JSON-able.

    Args:
        metric: Name of the metric or protocol.
        alignment: What was fitted to truth.
        averaging: From pixels to clips to the benchmark.
        num_frames: Fewest and most frames of a clip.
        chunking: How clips longer than the model takes were cut.
        mask: Which truth counts.
        max_depth: Metres; None for no bound.
        resize: How prediction and truth came to one size.
        resolution: At which size was compared.
        uses_true_intrinsics: Whether the prediction was given them.
        result: Gives the numbers of clips, and of those undefined, infinite and missing.
        extra: More entries.

    Returns:
        Name -> value, with the version of this code.
    """
    out: dict[str, Any] = {
        "metric": metric,
        "alignment": alignment,
        "mask": mask,
        "max_depth": max_depth,
        "resize": resize,
        "resolution": resolution,
        "uses_true_intrinsics": uses_true_intrinsics,
        "num_frames": None if num_frames is None else list(num_frames),
        "chunking": chunking,
        "averaging": averaging,
        "code": f"datakit {_version()}",
    }
    if result is not None:
        out |= {
            "clips": result.clips,
            "clips_undefined": dict(result.undefined),
            "clips_infinite": dict(result.infinite),
            "clips_missing": list(result.missing),
        }
    return out | dict(extra or {})


def _version() -> str:
    try:
        return version("datakit")
    except PackageNotFoundError:
        return "unknown"
