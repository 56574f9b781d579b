"""Single rules of certificates: what is no fault, and what is one for all that."""

from __future__ import annotations

import numpy as np
import pytest

from datakit.certify import load_thresholds
from datakit.certify.bias import Bias
from datakit.certify.cameras import off_centre
from datakit.certify.judge import Context, bias_measure
from datakit.certify.knobs import KNOBS

SIZE = (1920, 1280)
K = np.array([[2050.0, 0, 945], [0, 2050, 651], [0, 0, 1]])


def _cut(first: int, rows: int) -> tuple[np.ndarray, tuple[int, int]]:
    cut = K.copy()
    cut[1, 2] -= first
    return cut, (SIZE[0], rows)


@pytest.mark.parametrize(("first", "rows"), [(0, 886), (197, 886), (394, 886), (0, 1280)])
def test_images_cut_along_one_axis_are_whole(first: int, rows: int) -> None:
    cut, size = _cut(first, rows)
    assert off_centre(cut[None], size) < 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        K * np.array([[0.5], [0.5], [1.0]]),
        K * np.array([[2.0], [2.0], [1.0]]),
        K[[1, 0, 2]][:, [1, 0, 2]],  # x and y swapped
    ],
    ids=["half", "double", "swapped"],
)
def test_k_of_another_image_is_found_in_whole_and_cut_images(wrong: np.ndarray) -> None:
    limit = load_thresholds().limit("intrinsics", "off_centre", "rendered").fail
    assert limit is not None
    assert off_centre(wrong[None], SIZE) > limit
    assert off_centre(np.stack([K, wrong]), SIZE) > limit


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.211, 0.0758, "pass"),  # exact depth rounded to half floats, eight frames
        (0.211, 0.05, "warn"),
        (0.3, 0.0758, "warn"),
        (0.41, 0.11, "fail"),
        (0.3, 0.12, "not_testable"),
    ],
)
def test_a_warning_stands_out_of_the_noise(value: float, error: float, verdict: str) -> None:
    context = Context(None, load_thresholds(), "rendered", 0)  # type: ignore[arg-type]
    measure = bias_measure(context, "depth_reprojection", KNOBS["pose_time"], Bias(value, error, 1000))
    assert measure.verdict == verdict
    assert bool(measure.reason) == (verdict != "pass")
