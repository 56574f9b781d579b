from __future__ import annotations

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate import THRESHOLDS_PX, apd3d, focal_at_256, median_scale, points_within

FOCAL = 200.0


def ahead(*depths: float) -> np.ndarray:
    return np.array([[0.0, 0.0, z] for z in depths])


def test_focal_is_that_of_an_image_of_256():
    matrix = np.diag([400.0, 100.0, 1.0])
    assert focal_at_256(matrix, (1024, 512)) == pytest.approx(100.0)
    assert focal_at_256(np.stack([matrix] * 3), (128, 256)).tolist() == [400.0] * 3


def test_thresholds_are_pixels_at_the_true_depth_and_strict():
    target = ahead(10.0, 10.0, 20.0)
    # One pixel at z = 10 is 0.05, at z = 20 it is 0.1: 0.8, 6 and 1.5 pixels off.
    predicted = target + ahead(0.04, 0.3, 0.15)
    shares = points_within(predicted, target, np.ones(3, bool), FOCAL, align="none")
    assert shares.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1.0, 1.0])
    # 0.25 is exactly one pixel at z = 10 and f = 40, and half of one at z = 20.
    exactly = points_within(target + ahead(0.25, 0.25, 0.25), target, np.ones(3, bool), 40.0, align="none")
    assert exactly[0] == pytest.approx(1 / 3)
    assert apd3d(predicted, target, np.ones(3, bool), FOCAL, align="none") == pytest.approx(shares.mean())


def test_each_point_has_the_focal_length_of_its_camera():
    target = ahead(10.0, 10.0)
    shares = points_within(target + ahead(0.04, 0.04), target, np.ones(2, bool), [200.0, 400.0], align="none")
    assert shares[0] == 0.5 and len(shares) == len(THRESHOLDS_PX)


def test_the_scale_is_a_ratio_of_median_norms_of_visible_points():
    target = np.array([[3.0, 0.0, 4.0], [0.0, 0.0, 10.0], [0.0, 0.0, 1000.0]])
    visible = np.array([True, True, False])
    assert median_scale(target / 4, target, visible) == pytest.approx(4.0)
    mixed = target / 4 * np.array([[1.0], [1.0], [77.0]])
    assert apd3d(mixed, target, visible, FOCAL) == 1.0
    assert apd3d(mixed, target, visible, FOCAL, align="none") == 0.0
    # With the visibility of the prediction only the points that both see set the scale.
    half = target * np.array([[1.0], [0.5], [1.0]])
    both = np.array([True, False, True])
    assert points_within(half, target, visible, FOCAL, predicted_visible=both)[0] == 0.5


def test_no_answer_is_a_miss_and_no_truth_is_undefined():
    target = ahead(10.0, 12.0)
    predicted = ahead(10.0, np.nan)
    assert points_within(predicted, target, np.ones(2, bool), FOCAL)[-1] == 0.5
    assert np.isnan(apd3d(predicted, target, np.zeros(2, bool), FOCAL))
    assert apd3d(ahead(np.nan, np.nan), target, np.ones(2, bool), FOCAL) == 0.0
    with pytest.raises(UsageError, match="not finite"):
        apd3d(target, ahead(10.0, np.nan), np.ones(2, bool), FOCAL)
    with pytest.raises(UsageError, match="fit"):
        apd3d(target, target[:1], np.ones(2, bool), FOCAL)
