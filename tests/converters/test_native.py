"""What readers of several datasets share."""

from __future__ import annotations

import numpy as np
import pytest

from converters.native.files import check_size
from converters.native.halves import z_of_frames
from datakit.errors import ConventionError, FormatError
from datakit.scene.codecs import MAX_PIXELS


@pytest.mark.parametrize("size", [(4, 3), (4.0, 3.0), (MAX_PIXELS, 1)])
def test_sizes_of_photos(size: tuple[float, float]) -> None:
    found = check_size(*size, "A photo", "x")
    assert found == size and all(type(side) is int for side in found)


@pytest.mark.parametrize(
    "size",
    [(0, 3), (3, 0), (-4, -3), (4.5, 3), (4, 3.5), (MAX_PIXELS, 2), (1e308, 1e308), (float("nan"), 3)],
)
def test_absurd_sizes(size: tuple[float, float]) -> None:
    with pytest.raises(FormatError, match="A photo has an absurd size"):
        check_size(*size, "A photo", "x")


def test_a_table_of_codes_for_each_scale_but_no_more_than_memory_bears() -> None:
    half, one = np.float16(0.5).view(np.uint16), np.float16(1).view(np.uint16)
    values, row = z_of_frames([1.0, 2.0, 1.0], "x")
    np.testing.assert_array_equal(values[:, [half, one]], [[0.5, 1], [1, 2]])
    np.testing.assert_array_equal(row, [0, 1, 0])
    values, row = z_of_frames([3.0] * 1000, "x")
    assert values.shape == (1, 1 << 16) and row is None
    with pytest.raises(ConventionError, match="x: depth.scale_adjustment"):
        z_of_frames(np.linspace(1, 2, 257).tolist(), "x")
