from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datakit.errors import FormatError, LayoutError, UsageError
from datakit.infer.requests import parse_requests
from datakit.infer.video import SourceInfo

INFO = SourceInfo(
    kind="video",
    path=Path("v.mp4"),
    size=(40, 20),
    numbers=np.array([0, 2, 4, 6, 8]),
    times_s=np.arange(5.0),
    names=tuple("abcde"),
    num_all=10,
    clock="",
    files=(),
)
NOTHING = np.zeros((0, 2))


def test_a_grid_begins_once_and_is_filled_up():
    requests = parse_requests("grid:4", INFO)
    ids, frames, uv = requests.begin(0, 0, 5, INFO.size, NOTHING)
    assert len(uv) == 8 == len(set(ids.tolist())) and set(frames.tolist()) == {0}  # 4 x 2 square cells
    np.testing.assert_allclose(uv[:2], [[0.125, 0.25], [0.375, 0.25]])
    taken = np.array([[0.1, 0.1], [0.9, 0.9], [0.2, 0.2], [np.nan, 0.5], [1.2, 0.5]])
    later, frames, uv = requests.begin(1, 3, 5, INFO.size, taken)
    assert len(uv) == 6 and set(frames.tolist()) == {3} and not set(later) & set(ids)
    assert not any(np.allclose(place, [0.125, 0.25]) or np.allclose(place, [0.875, 0.75]) for place in uv)
    assert requests.expected(INFO.size) == 8 and not requests.is_empty


def test_single_pixels_begin_in_the_window_that_first_shows_them(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("frame,x,y\n0,10,5\n6,40,20\n0,0,0\n")
    requests = parse_requests(str(path), INFO)
    assert requests.frame.tolist() == [0, 3, 0]  # frames that are used, not numbers in the source
    np.testing.assert_allclose(requests.uv, [[0.25, 0.25], [1, 1], [0, 0]])
    first = requests.begin(0, 0, 3, INFO.size, NOTHING)
    second = requests.begin(1, 3, 5, INFO.size, NOTHING)
    assert first[0].tolist() == [0, 2] and second[0].tolist() == [1]
    assert requests.expected(INFO.size) == 3


def test_nothing_to_follow():
    requests = parse_requests("none", INFO)
    assert requests.is_empty and len(requests.begin(0, 0, 5, INFO.size, NOTHING)[0]) == 0


def test_the_description_tells_requests_apart(tmp_path):
    (tmp_path / "a.csv").write_text("frame,x,y\n0,10,5\n")
    (tmp_path / "b.csv").write_text("frame,x,y\n0,10,6\n")
    texts = ["none", "grid:4", "grid:5", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert len({str(parse_requests(text, INFO).describe()) for text in texts}) == 5


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("x,y\n1,2\n", FormatError, "column is missing"),
        ("frame,x,y\n", FormatError, "names no pixel"),
        ("frame,x,y\n0,1,a\n", FormatError, "line 2"),
        ("frame,x,y\n0,1,2\n0,41,2\n", FormatError, r"outside[\s\S]*line 3"),
        ("frame,x,y\n0,nan,2\n", FormatError, "outside"),
        ("frame,x,y\n1,1,2\n", UsageError, "not used"),
        ("frame,x,y\n0,1\n", FormatError, "line 2"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, kind, message):
    path = tmp_path / "points.csv"
    path.write_text(content)
    with pytest.raises(kind, match=message):
        parse_requests(str(path), INFO)


def test_bad_requests_are_named(tmp_path):
    for text in ("grid:0", "grid:x", "grid:99999", "points.txt"):
        with pytest.raises(UsageError):
            parse_requests(text, INFO)
    with pytest.raises(LayoutError, match="No such file"):
        parse_requests(str(tmp_path / "none.csv"), INFO)
    (tmp_path / "bytes.csv").write_bytes(b"frame,x,y\n\xff\xfe\n")
    with pytest.raises(FormatError, match="not CSV"):
        parse_requests(str(tmp_path / "bytes.csv"), INFO)
