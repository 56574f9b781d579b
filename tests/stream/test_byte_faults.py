"""Every class of byte of a shard set, damaged: `verify` names it, and the stream delivers nothing that is wrong.

What the stream does not read (tar headers, padding, the list of scenes) leaves its batches as they were; what it reads
is a typed failure of exactly the clips that it touches, counted against the budget.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datakit.errors import DatakitError, ShardError
from datakit.shards import KINDS, PackParams, ShardSet, open_set, pack, trace, verify
from datakit.shards.index import columns_of
from datakit.shards.manifest import parse_manifest
from datakit.stream import Stream, stream

from .rank_main import fingerprints

#: Fields of a ustar header: name -> (offset, length) (POSIX.1 pax, "ustar Interchange Format").
HEADER = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "chksum": (148, 8),
    "typeflag": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 6),
    "version": (263, 2),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
    "fill": (500, 12),
}
COLUMNS = (
    "shard", "num_frames", "start_frame", "dataset", "licence", "scale", "certificate", "time_kind", "depth_kind",
    "motion_kinds", "has_tracks", "difficulty", "member_offset", "member_length", "member_xxh3", "member_sha256",
    "scene_sha256", "certificate_sha256", "key_bytes", "key_offset", "scene_bytes", "scene_offset",
    "overlap_bytes", "overlap_offset",
)  # fmt: skip
MANIFEST_FIELDS = (
    "datasets", "format", "index", "manifest_sha256", "names", "params", "plan_sha256", "refused", "scenes", "shards",
    "totals", "version",
)  # fmt: skip
#: Enough for every clip to come.
STEPS = 9
PACKS = tuple(kind for kind in KINDS if kind.endswith(".pack"))
#: Bytes of a pack's parts: magic, count, the first offsets, the last of them (`docs/shards.md`).
PACK_PARTS = {"magic": 0, "count": 4, "first offset": 8, "second offset": 16}


@dataclass
class Whole:
    """A sound set and what it streams: a fingerprint a step; every clip is among them."""

    root: Path
    shards: ShardSet
    samples: list[str]

    def owner(self, kind: str) -> int:
        """A clip in the middle of the set that has a member of this kind."""
        return next(i for i in range(3, self.shards.num_clips) if self.shards.has_member(i, kind))


def small_stream(root: str | Path, **options: Any) -> Stream:
    return stream(root, batch_size=1, clip_frames=3, size=16, num_queries=16, num_steps=STEPS, **options)


@pytest.fixture(scope="module")
def whole(shard_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("whole") / "set"
    params = PackParams(min_level="none", shard_bytes=300_000)
    pack(sorted(shard_root.parent.glob("*.h5")), root, params=params, progress=False)
    batches = list(small_stream(root))
    assert len({batch["meta"]["key"][0] for batch in batches}) == 7
    return Whole(root, open_set(root), [fingerprints(batch)[0] for batch in batches])


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.root, tmp_path / "set"))


def flip(path: Path, at: int, bit: int = 3) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def delivers_the_rest(whole: Whole, root: Path, harmed: set[str], workers: int = 0) -> None:
    """Stream the set: the harmed clips fail, are counted and empty; the others are what they were, to the bit."""
    with small_stream(root, failure_budget=STEPS, workers=workers) as run:
        for step, batch in enumerate(run):
            key = batch["meta"]["key"][0]
            assert batch["meta"]["valid"][0] == (key not in harmed), key
            if key not in harmed:
                assert fingerprints(batch)[0] == whole.samples[step]
                continue
            assert not batch["video"].any() and not batch["frame_mask"].any()
            assert not any(mask.any() for mask in batch["mask"].values())
            assert np.isnan(batch["target"]["xyz"]).all()
        failures = run.ledger.failures
    assert {sample["key"] for entry in failures.values() for sample in entry["samples"]} == harmed
    assert all(reason.startswith("ShardError: ") for reason in failures)
    if harmed:
        with pytest.raises(ShardError, match="over the budget of 0") as caught:
            list(small_stream(root))
        assert any(key in str(caught.value.where) for key in harmed)
        assert caught.value.expected and caught.value.found


def is_refused(root: Path, named: str) -> None:
    """Opening the set is a typed error that names the file; the stream never starts."""
    with pytest.raises(ShardError) as caught:
        small_stream(root)
    assert named in str(caught.value)


# Tar headers, padding, the end: nothing that the stream reads.


@pytest.mark.parametrize("field", HEADER)
def test_tar_header(whole: Whole, copy: Path, field: str) -> None:
    i = whole.owner("z_depth.pack")
    at = whole.shards.member(i, "z_depth.pack")
    first, length = HEADER[field]
    for place in {first, first + length // 2, first + length - 1}:
        flip(copy / at.shard, at.offset - 512 + place)
        (problem,) = verify(copy)
        assert problem.what == "Tar header is corrupt"
        assert at.shard in str(problem.where) and f"{whole.shards.key(i)}.z_depth.pack" in str(problem.where)
        flip(copy / at.shard, at.offset - 512 + place)
    flip(copy / at.shard, at.offset - 512 + first)
    delivers_the_rest(whole, copy, set())


def test_the_fields_are_all_of_a_header() -> None:
    ends = [first + length for first, length in HEADER.values()]
    assert [first for first, _ in HEADER.values()] == [0, *ends[:-1]] and ends[-1] == 512


@pytest.mark.parametrize("kind", KINDS)
def test_padding(whole: Whole, copy: Path, kind: str) -> None:
    shards = whole.shards
    i, at = next(
        (i, at)
        for i in range(shards.num_clips)
        if shards.has_member(i, kind) and (at := shards.member(i, kind)).length % 512
    )
    end = at.offset + at.length
    for place in (end, end + -end % 512 - 1):
        flip(copy / at.shard, place)
        (problem,) = verify(copy)
        assert problem.what == "Padding is corrupt" and f"{shards.key(i)}.{kind}" in str(problem.where)
        delivers_the_rest(whole, copy, set())
        flip(copy / at.shard, place)


@pytest.mark.parametrize("back", [1, 512, 1024])
def test_end_of_the_archive(whole: Whole, copy: Path, back: int) -> None:
    path = copy / "shard-000001.tar"
    flip(path, path.stat().st_size - back)
    (problem,) = verify(copy)
    assert problem.what == "End of the archive is corrupt" and path.name in str(problem.where)
    delivers_the_rest(whole, copy, set())


# Members: what the stream reads.


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_member(whole: Whole, copy: Path, kind: str, place: str) -> None:
    at = whole.shards.member(whole.owner(kind), kind)
    harm(whole, copy, kind, {"first": 0, "middle": at.length // 2, "last": at.length - 1}[place])


@pytest.mark.parametrize("part", [*PACK_PARTS, "last offset"])
@pytest.mark.parametrize("kind", PACKS)
def test_parts_of_a_pack(whole: Whole, copy: Path, kind: str, part: str) -> None:
    frames = int(whole.shards.num_frames[whole.owner(kind)])
    harm(whole, copy, kind, PACK_PARTS.get(part, 8 + 8 * frames))


@pytest.mark.parametrize("place", [0, 7, 8, 40])
def test_parts_of_the_arrays(whole: Whole, copy: Path, place: int) -> None:
    """The safetensors' header length and its table."""
    harm(whole, copy, "arrays.safetensors", place)


def harm(whole: Whole, copy: Path, kind: str, place: int) -> None:
    i = whole.owner(kind)
    at, key = whole.shards.member(i, kind), whole.shards.key(i)
    flip(copy / at.shard, at.offset + place)
    (problem,) = verify(copy)
    assert problem.what == "Member is corrupt"
    assert at.shard in str(problem.where) and f"{key}.{kind}" in str(problem.where)
    delivers_the_rest(whole, copy, {key})
    with pytest.raises(ShardError, match=rf"member {kind} of {key}"):
        list(small_stream(copy))


def test_workers_tell_the_same(whole: Whole, copy: Path) -> None:
    i = whole.owner("rgb.pack")
    flip(copy / whole.shards.member(i, "rgb.pack").shard, whole.shards.member(i, "rgb.pack").offset + 100)
    delivers_the_rest(whole, copy, {whole.shards.key(i)}, workers=1)


def test_damage_that_comes_while_streaming(whole: Whole, copy: Path) -> None:
    run = small_stream(copy, failure_budget=STEPS)
    shown = {next(run)["meta"]["key"][0] for _ in range(3)}
    for i in range(7):
        at = whole.shards.member(i, "arrays.safetensors")
        if whole.shards.key(i) not in shown:
            flip(copy / at.shard, at.offset + at.length // 3)
    valid = [(batch["meta"]["key"][0], batch["meta"]["valid"][0]) for batch in run]
    assert len(valid) == STEPS - 3 and not all(is_valid for _, is_valid in valid)
    assert all(is_valid == (key in shown) for key, is_valid in valid)


# Tables.


@pytest.mark.parametrize("column", COLUMNS)
def test_index_column(whole: Whole, copy: Path, column: str) -> None:
    data = (copy / "index.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + size])[column]["data_offsets"]
    for place in {first, (first + last) // 2, last - 1}:
        flip(copy / "index.safetensors", 8 + size + place)
        table_is_refused(copy, "index.safetensors")
        flip(copy / "index.safetensors", 8 + size + place)


def test_the_columns_are_all_of_the_index(whole: Whole) -> None:
    data = (whole.root / "index.safetensors").read_bytes()
    assert set(columns_of(data, "index")) == set(COLUMNS)


@pytest.mark.parametrize("place", [0, 3, 7, 8, 9, 60])
def test_index_header(copy: Path, place: int) -> None:
    flip(copy / "index.safetensors", place)
    table_is_refused(copy, "index.safetensors")


@pytest.mark.parametrize("field", MANIFEST_FIELDS)
def test_manifest_field(copy: Path, field: str) -> None:
    data = (copy / "manifest.json").read_bytes()
    found = re.search(rb'^ "(%s)":( )' % field.encode(), data, re.MULTILINE)
    assert found
    following = re.search(rb'^ "|^}', data[found.end() :], re.MULTILINE)
    assert following
    for place in (found.start(1), found.end(), found.end() + following.start() - 4):
        flip(copy / "manifest.json", place, bit=1)
        table_is_refused(copy, "manifest.json")
        flip(copy / "manifest.json", place, bit=1)


def test_the_fields_are_all_of_the_manifest(whole: Whole) -> None:
    assert set(whole.shards.manifest) == set(MANIFEST_FIELDS)


def test_every_single_byte_of_the_manifest(whole: Whole) -> None:
    data = bytearray((whole.root / "manifest.json").read_bytes())
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        with pytest.raises(ShardError):
            parse_manifest(bytes(data), "manifest.json")
        data[at] ^= 1 << at % 8
    parse_manifest(bytes(data), "manifest.json")


def table_is_refused(root: Path, name: str) -> None:
    for quick in (False, True):
        (problem,) = verify(root, quick=quick)
        assert name in str(problem.where)
    is_refused(root, name)


@pytest.mark.parametrize(
    "field", ["scene_sha256", "licence", "citation", "certificate", "sources", "dataset"]
)
def test_list_of_scenes(whole: Whole, copy: Path, field: str) -> None:
    path = copy / "scenes.jsonl"
    at = path.read_bytes().index(f'"{field}":'.encode()) + len(field) + 5
    flip(path, at, bit=1)
    (problem,) = verify(copy)
    assert "scenes.jsonl" in str(problem.where)
    delivers_the_rest(whole, copy, set())
    with pytest.raises(ShardError, match=r"scenes\.jsonl"):
        trace(copy, whole.shards.key(0))


# Whole files.


def cut(whole: Whole, i: int, kind: str, place: str) -> int:
    at = whole.shards.member(i, kind)
    return {
        "at the header": at.offset - 512,
        "in the header": at.offset - 200,
        "at the data": at.offset,
        "in the data": at.offset + at.length // 2,
        "before the last byte": at.offset + at.length - 1,
    }[place]


@pytest.mark.parametrize("kind", ["clip.json", "rgb.pack", "z_depth.pack"])
@pytest.mark.parametrize(
    "place", ["at the header", "in the header", "at the data", "in the data", "before the last byte"]
)
def test_truncated_shard(whole: Whole, copy: Path, kind: str, place: str) -> None:
    shards, i = whole.shards, whole.owner(kind)
    name, end = shards.member(i, kind).shard, cut(whole, i, kind, place)
    with open(copy / name, "r+b") as file:
        file.truncate(end)
    (quick,) = verify(copy, quick=True)
    assert quick.what == "Shard is truncated" and name in str(quick.where)
    first, second = verify(copy)
    assert first.what == "Shard is truncated"
    assert f"{shards.key(i)}.{kind}" in str(second.where) and second.what == "File ends too early"
    delivers_the_rest(whole, copy, {shards.key(n) for n in range(7) if reaches_beyond(shards, n, name, end)})


def reaches_beyond(shards: ShardSet, i: int, name: str, end: int) -> bool:
    members = [shards.member(i, kind) for kind in KINDS if shards.has_member(i, kind)]
    return members[0].shard == name and members[-1].offset + members[-1].length > end


def test_shard_cut_in_its_end(whole: Whole, copy: Path) -> None:
    path = copy / "shard-000000.tar"
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 700)
    first, second = verify(copy)
    assert first.what == "Shard is truncated" and second.what == "File ends too early"
    delivers_the_rest(whole, copy, set())


def keys_in(whole: Whole, *names: str) -> set[str]:
    return {whole.shards.key(i) for i in range(7) if whole.shards.member(i, "clip.json").shard in names}


def remove(root: Path) -> None:
    (root / "shard-000001.tar").unlink()


def empty(root: Path) -> None:
    (root / "shard-000001.tar").write_bytes(b"")


def folder_instead(root: Path) -> None:
    (root / "shard-000001.tar").unlink()
    (root / "shard-000001.tar").mkdir()


def other_shard_instead(root: Path) -> None:
    shutil.copy(root / "shard-000000.tar", root / "shard-000001.tar")


@pytest.mark.parametrize("change", [remove, empty, folder_instead, other_shard_instead])
def test_a_shard_that_is_not_there(whole: Whole, copy: Path, change: Callable[[Path], None]) -> None:
    change(copy)
    problems = verify(copy)
    assert problems and all("shard-000001.tar" in str(problem.where) for problem in problems)
    delivers_the_rest(whole, copy, keys_in(whole, "shard-000001.tar"))


def test_swapped_shards(whole: Whole, copy: Path) -> None:
    a, b = copy / "shard-000000.tar", copy / "shard-000001.tar"
    a.rename(copy / "c")
    b.rename(a)
    (copy / "c").rename(b)
    problems = [str(problem.where) for problem in verify(copy)]
    assert any(a.name in where for where in problems) and any(b.name in where for where in problems)
    delivers_the_rest(whole, copy, keys_in(whole, a.name, b.name))


@pytest.mark.parametrize("extra", [b"\0" * 512, b"x"])
def test_a_shard_that_grew(whole: Whole, copy: Path, extra: bytes) -> None:
    with open(copy / "shard-000000.tar", "ab") as file:
        file.write(extra)
    for quick in (False, True):
        (problem,) = verify(copy, quick=quick)
        assert problem.what == "Shard is too long" and "shard-000000.tar" in str(problem.where)
    delivers_the_rest(whole, copy, set())


@pytest.mark.parametrize("table", ["index.safetensors", "manifest.json", "scenes.jsonl"])
@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "gone"])
def test_tables_of_another_length(whole: Whole, copy: Path, table: str, change: str) -> None:
    path = copy / table
    data = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes({"shorter": data[:-1], "longer": data + b"\n", "empty": b""}[change])
    (problem,) = verify(copy)
    assert table in str(problem)
    if table == "scenes.jsonl":
        delivers_the_rest(whole, copy, set())
    else:
        is_refused(copy, table)


@pytest.mark.parametrize("name", ["shard-000009.tar", "notes.txt", ".hidden", "shard-000000.tar.partial"])
def test_a_file_too_many(whole: Whole, copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"not of the set")
    (problem,) = verify(copy, quick=True)
    assert problem.what == "File does not belong to the set" and name in str(problem.where)
    delivers_the_rest(whole, copy, set())


def test_errors_travel_and_name_themselves(whole: Whole, copy: Path) -> None:
    """Every problem that `verify` gives is one of ours, with all that is needed to act on it."""
    flip(copy / "shard-000000.tar", 700)
    flip(copy / "scenes.jsonl", 5)
    (copy / "extra").write_text("")
    problems = verify(copy)
    assert len(problems) == 3
    for problem in problems:
        assert isinstance(problem, DatakitError)
        assert problem.where and problem.expected and problem.found
