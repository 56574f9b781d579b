"""Every class of damage, each found by `verify` under the right name, none ever delivered."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datakit.errors import ShardError
from datakit.shards import KINDS, ShardSet, open_set, verify


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def read_all(shard_set: ShardSet) -> list[ShardError]:
    errors = []
    for i in range(shard_set.num_clips):
        for kind in KINDS:
            if shard_set.has_member(i, kind):
                try:
                    shard_set.read_member(i, kind)
                except ShardError as error:
                    errors.append(error)
    return errors


def test_sound_set_has_no_problem(packed: Path) -> None:
    assert verify(packed) == []
    assert verify(packed, quick=True) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_flipped_bit_in_a_member(copy: Path, shard_set: ShardSet, kind: str, place: str) -> None:
    i = next(i for i in reversed(range(shard_set.num_clips)) if shard_set.has_member(i, kind))
    at = shard_set.member(i, kind)
    flip(
        copy / at.shard,
        at.offset + {"first": 0, "middle": at.length // 2, "last": at.length - 1}[place],
        bit=6,
    )
    (problem,) = verify(copy)
    assert f"{shard_set.key(i)}.{kind}" in problem.where
    assert at.shard in problem.where
    assert problem.what == "Member is corrupt"
    assert verify(copy, quick=True) == []
    (error,) = read_all(open_set(copy))
    assert f"{kind} of {shard_set.key(i)}" in error.where
    assert at.shard in error.where
    assert f"{at.xxh3:016x}" in error.expected
    assert error.found != error.expected
    assert open_set(copy).read_member(i, kind, check=False) != shard_set.read_member(i, kind)


@pytest.mark.parametrize("field", range(0, 512, 37))
def test_flipped_bit_in_a_tar_header(copy: Path, shard_set: ShardSet, field: int) -> None:
    at = shard_set.member(2, "rgb.pack")
    flip(copy / at.shard, at.offset - 512 + field)
    (problem,) = verify(copy)
    assert problem.what == "Tar header is corrupt"
    assert f"{shard_set.key(2)}.rgb.pack" in problem.where
    assert read_all(open_set(copy)) == []  # the index, not the header, says where the data is


def test_flipped_bit_in_padding_and_end(copy: Path, shard_set: ShardSet) -> None:
    at = shard_set.member(0, "clip.json")
    assert at.length % 512
    flip(copy / at.shard, at.offset + at.length)
    flip(copy / at.shard, (copy / at.shard).stat().st_size - 1)
    padding, end = verify(copy)
    assert padding.what == "Padding is corrupt"
    assert "clip.json" in padding.where
    assert end.what == "End of the archive is corrupt"


@pytest.mark.parametrize("name", ["manifest.json", "index.safetensors", "scenes.jsonl"])
@pytest.mark.parametrize("quick", [False, True])
def test_any_flipped_bit_of_a_table_is_found(copy: Path, name: str, quick: bool) -> None:
    rng = random.Random(name)
    data = (copy / name).read_bytes()
    for at in sorted({0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(15))}):
        flip(copy / name, at, bit := rng.randrange(8))
        problems = verify(copy, quick=quick)
        assert len(problems) == 1, (at, bit)
        assert name in problems[0].where
        if name != "scenes.jsonl":
            with pytest.raises(ShardError):
                open_set(copy)
        (copy / name).write_bytes(data)


def test_manifest_with_the_same_content_in_other_bytes_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'": ', b'":  ', 1))
    assert len(verify(copy)) == 1


def test_any_flipped_bit_of_a_shard_is_found(copy: Path) -> None:
    rng = random.Random(0)
    path = copy / "shard-000001.tar"
    data = path.read_bytes()
    for _ in range(25):
        flip(path, rng.randrange(len(data)), rng.randrange(8))
        assert len(verify(copy)) == 1
        path.write_bytes(data)


def test_shards_are_checked_even_without_an_index(copy: Path) -> None:
    flip(copy / "index.safetensors", 500)
    flip(copy / "shard-000000.tar", 5000)
    index, shard = verify(copy)
    assert "index.safetensors" in index.where
    assert "shard-000000.tar" in shard.where


def _cut_in_data(path: Path, start: int) -> None:
    path.write_bytes(path.read_bytes()[: start + 10])


def _cut_before_header(path: Path, start: int) -> None:
    path.write_bytes(path.read_bytes()[: start - 600])


@pytest.mark.parametrize("cut", [_cut_in_data, _cut_before_header])
def test_truncated_tar(copy: Path, shard_set: ShardSet, cut: Callable[[Path, int], None]) -> None:
    at = shard_set.member(3, "z_depth.pack")
    cut(copy / at.shard, at.offset)
    (quick,) = verify(copy, quick=True)
    assert quick.what == "Shard is truncated"
    problems = verify(copy)
    assert problems[0].what == "Shard is truncated"
    assert any(shard_set.key(3) in problem.where for problem in problems[1:])
    errors = read_all(open_set(copy))
    assert len(errors) >= 2
    assert all(shard_set.key(3) in error.where and error.what == "File ends too early" for error in errors)


def test_longer_tar(copy: Path) -> None:
    with open(copy / "shard-000000.tar", "ab") as file:
        file.write(bytes(512))
    assert [p.what for p in verify(copy)] == ["Shard is too long"]


def test_missing_shard(copy: Path, shard_set: ShardSet) -> None:
    (copy / "shard-000001.tar").unlink()
    for quick in (False, True):
        (problem,) = verify(copy, quick=quick)
        assert "shard-000001.tar" in problem.where
        assert "missing" in problem.what
    errors = read_all(open_set(copy))
    assert errors
    assert all("shard-000001.tar" in error.where for error in errors)


@pytest.mark.parametrize("name", ["index.safetensors", "scenes.jsonl", "manifest.json"])
def test_missing_table(copy: Path, name: str) -> None:
    (copy / name).unlink()
    (problem,) = verify(copy, quick=True)
    assert name in str(problem)
    if name != "scenes.jsonl":
        with pytest.raises(ShardError):
            open_set(copy)


def test_foreign_tar_is_named(copy: Path) -> None:
    shutil.copy(copy / "shard-000000.tar", copy / "shard-000099.tar")
    (problem,) = verify(copy, quick=True)
    assert "shard-000099.tar" in problem.where


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "index.safetensors.bak"])
def test_any_other_foreign_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_text("not of the set")
    for quick in (False, True):
        (problem,) = verify(copy, quick=quick)
        assert problem.what == "File does not belong to the set"
        assert name in problem.where


def test_large_shards_are_read_in_pieces(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that begin and end anywhere in a piece are checked all the same."""
    from importlib import import_module

    monkeypatch.setattr(import_module("datakit.shards.verify"), "_CHUNK", 1000)
    assert verify(copy) == []
    flip(copy / "shard-000000.tar", 5000)
    assert len(verify(copy)) == 1


def test_swapped_shards_are_found(copy: Path) -> None:
    a, b = copy / "shard-000000.tar", copy / "shard-000001.tar"
    a.rename(copy / "c")
    b.rename(a)
    (copy / "c").rename(b)
    assert verify(copy)
    assert read_all(open_set(copy))


def test_index_of_another_set_is_refused(copy: Path, scenes: list[Path], tmp_path: Path) -> None:
    from datakit.shards import PackParams, pack

    pack(scenes, tmp_path / "other", params=PackParams(clip_frames=4), progress=False)
    shutil.copy(tmp_path / "other" / "index.safetensors", copy)
    with pytest.raises(ShardError, match="index"):
        open_set(copy)


def test_manifest_of_another_version_is_refused(copy: Path) -> None:
    from datakit.shards.layout import FORMAT_VERSION, sha256_json
    from datakit.shards.manifest import _text, parse_manifest

    path = copy / "manifest.json"
    manifest = parse_manifest(path.read_bytes(), "x")
    del manifest["manifest_sha256"]
    manifest["version"] = FORMAT_VERSION + 1
    manifest["manifest_sha256"] = sha256_json(manifest)
    path.write_bytes(_text(manifest))
    with pytest.raises(ShardError, match="another format"):
        open_set(copy)
