from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np
import pytest

from datakit.errors import FormatError
from datakit.infer.files import atomic_file, read_npz, write_npz, write_npz_parts
from datakit.infer.store import load_result, save_result


@dataclass(frozen=True)
class Inner:
    xyz: np.ndarray
    name: str


@dataclass(frozen=True)
class Outer:
    first: int
    size: tuple[int, int]
    inner: Inner | None
    other: Inner | None
    maps: np.ndarray | None


RESULT = Outer(3, (4, 5), Inner(np.arange(6.0).reshape(2, 3), "a"), None, None)


def test_a_result_comes_back_and_belongs_to_its_job(tmp_path):
    path = tmp_path / "r.npz"
    save_result(path, RESULT, "job")
    back = load_result(path, Outer, "job")
    assert (back.first, back.size, back.other, back.maps, back.inner.name) == (3, (4, 5), None, None, "a")
    np.testing.assert_array_equal(back.inner.xyz, RESULT.inner.xyz)
    assert load_result(path, Outer, "another job") is None


def test_the_same_result_gives_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_result(tmp_path / name, RESULT, "job")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    members = zipfile.ZipFile(tmp_path / "a.npz").infolist()
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}, "no time of day"


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_damage_is_an_error(tmp_path, damage):
    path = tmp_path / "r.npz"
    save_result(path, RESULT, "job")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        at = data.index(np.float64(4.0).tobytes())
        data[at] ^= 1
    else:
        write_npz(path, {"x": np.zeros(2), "__identity__": np.array("job")})
        data = bytearray(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(FormatError):
        load_result(path, Outer, "job")


def test_parts_make_the_array_they_belong_to(tmp_path):
    path, whole = tmp_path / "p.npz", np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    write_npz_parts(path, {"x": (whole.shape, "float32", iter(whole))})
    np.testing.assert_array_equal(np.load(path)["x"], whole)
    assert zipfile.ZipFile(path).testzip() is None
    with pytest.raises(ValueError, match="has 18 values"):
        write_npz_parts(path, {"x": (whole.shape, "float32", iter(whole[:3]))})
    np.testing.assert_array_equal(read_npz(path)["x"], whole)  # the good one is still there
    with pytest.raises(ValueError, match="objects"):
        write_npz(path, {"x": np.array([None])})


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "f") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
