from __future__ import annotations

import asyncio
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from datakit import open_scene
from datakit.errors import ShardError, UsageError
from datakit.shards import KINDS, ShardSet, codecs, open_set, verify
from datakit.shards.tar import end_of_archive, member_header, padding


def members_by_name(shard_set: ShardSet) -> dict[str, bytes]:
    return {
        f"{shard_set.key(i)}.{kind}": shard_set.read_member(i, kind)
        for i in range(shard_set.num_clips)
        for kind in KINDS
        if shard_set.has_member(i, kind)
    }


def test_plain_tarfile_reads_the_same_members(packed: Path, shard_set: ShardSet) -> None:
    found = {}
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (
                    0,
                    0,
                    0,
                    "",
                    "",
                    0o444,
                )
                found[info.name] = tar.extractfile(info).read()
    assert found == members_by_name(shard_set)


def test_plain_webdataset_reads_the_same_samples(packed: Path, shard_set: ShardSet) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [shard_set.key(i) for i in range(shard_set.num_clips)]
    for i, sample in enumerate(samples):
        for kind in KINDS:
            if shard_set.has_member(i, kind):
                assert sample[kind] == shard_set.read_member(i, kind)
        assert not [name for name in sample if not name.startswith("__") and name not in KINDS]


def test_shards_are_what_webdataset_would_write(packed: Path, shard_set: ShardSet) -> None:
    webdataset = pytest.importorskip("webdataset")
    for path in sorted(packed.glob("*.tar")):
        stream = io.BytesIO()
        writer = webdataset.TarWriter(stream, encoder=False, mtime=0, user="", group="")
        for i in range(shard_set.num_clips):
            for kind in KINDS:
                if shard_set.has_member(i, kind) and shard_set.member(i, kind).shard == path.name:
                    writer.write({"__key__": shard_set.key(i), kind: shard_set.read_member(i, kind)})
        writer.close()
        assert stream.getvalue() == path.read_bytes()


def test_long_names_stay_readable() -> None:
    name = "k" * 150 + ".clip.json"
    data = member_header(name, 3) + b"abc" + padding(3)
    with tarfile.open(fileobj=io.BytesIO(data + end_of_archive(len(data)))) as tar:
        (info,) = tar.getmembers()
        assert info.name == name
        assert tar.extractfile(info).read() == b"abc"


def test_content_is_that_of_the_scenes(shard_set: ShardSet, scenes: list[Path]) -> None:
    for path, first in zip(scenes, (0, 2), strict=True):
        with open_scene(path) as scene:
            view = next(iter(scene.views.values()))
            for i in (first, first + 1):
                data = shard_set.read_members(i, [k for k in KINDS if shard_set.has_member(i, k)])
                header = codecs.decode_clip_header(data["clip.json"])
                packs = {kind: codecs.unpack(blob) for kind, blob in data.items() if kind.endswith(".pack")}
                for at, t in enumerate(header["frame_indices"]):
                    assert bytes(packs["rgb.pack"][at]) == view.encoded("rgb", t)
                    z, want = codecs.decode_depth(packs["z_depth.pack"][at], header), view.z_depth(t)
                    np.testing.assert_allclose(z, want, rtol=header["z_depth"]["max_relative_error"])
                    labels = codecs.decode_instances(packs["instances.pack"][at], header)
                    assert np.array_equal(labels, view.instances(t))
                    if view.normals(t) is not None:
                        normals = codecs.decode_normals(packs["normals.pack"][at], header)
                        np.testing.assert_allclose(normals, view.normals(t), atol=1e-4)


def test_columns_describe_the_clips(shard_set: ShardSet, scenes: list[Path]) -> None:
    for i in range(shard_set.num_clips):
        header = codecs.decode_clip_header(shard_set.read_member(i, "clip.json"))
        assert shard_set.key(i) == header["key"]
        assert shard_set.find(header["key"]) == i
        assert shard_set.scene(i) == header["scene"]
        assert shard_set.datasets[shard_set.dataset_of[i]] == header["dataset"]
        assert shard_set.num_frames[i] == len(header["frame_indices"])
        assert shard_set.columns["scene_sha256"][i].tobytes().hex() == header["scene_sha256"]
        assert shard_set.names_of("scale")[shard_set.columns["scale"][i]] == header["scale"]
        assert (
            shard_set.names_of("depth_kind")[shard_set.columns["depth_kind"][i]] == header["z_depth"]["kind"]
        )
        for k, name in enumerate(shard_set.names_of("difficulty")):
            assert shard_set.columns["difficulty"][i, k] == pytest.approx(
                header["difficulty"][name], rel=1e-6
            )
    assert shard_set.columns["has_tracks"].tolist() == [False, False, True, True]
    assert shard_set.columns["motion_kinds"][0] == 0b110


def test_local_index_stays_a_memory_map(shard_set: ShardSet) -> None:
    import mmap

    base: Any = shard_set.columns["member_sha256"]
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj, mmap.mmap)


def test_set_travels_to_another_process(packed: Path, shard_set: ShardSet) -> None:
    again = pickle.loads(pickle.dumps(shard_set))
    assert again.read_member(1, "rgb.pack") == shard_set.read_member(1, "rgb.pack")


def test_wrong_requests_are_usage_errors(shard_set: ShardSet) -> None:
    for call in (
        lambda: shard_set.member(99, "rgb.pack"),
        lambda: shard_set.member(-1, "rgb.pack"),
        lambda: shard_set.member(0, "rgb"),
        lambda: shard_set.member(0, "normals.pack"),
        lambda: shard_set.find("tiny-square-cam-000001"),
    ):
        with pytest.raises(UsageError):
            call()


class Flaky(MemoryFileSystem):
    """Memory files behind a bad line: `plan` says what becomes of the next ranged reads."""

    protocol = "flaky"
    cachable = False
    plan: list[str] = []
    num_reads = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        data = super().cat_file(path, start, end, **kwargs)
        if start is None:
            return data
        type(self).num_reads += 1
        what = self.plan.pop(0) if self.plan else "good"
        if what == "error":
            raise OSError("connection reset")
        if what == "short":
            return data[: len(data) // 2]
        if what == "wrong":
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


@pytest.fixture
def remote(packed: Path) -> Any:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    fs = MemoryFileSystem()
    for path in packed.iterdir():
        fs.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    Flaky.plan = []
    opened = open_set("flaky://bucket/set", retries=2, first_wait=0.01)
    Flaky.num_reads = 0
    yield opened
    fs.rm("/bucket", recursive=True)


def test_remote_set_reads_the_same(remote: ShardSet, shard_set: ShardSet) -> None:
    assert remote.manifest_sha256 == shard_set.manifest_sha256
    assert members_by_name(remote) == members_by_name(shard_set)
    assert verify("flaky://bucket/set") == []


def test_members_side_by_side_take_one_request(remote: ShardSet) -> None:
    remote.read_members(0, ["clip.json", "arrays.safetensors", "rgb.pack"])
    assert Flaky.num_reads == 1


@pytest.mark.parametrize("plan", [["error"], ["short"], ["error", "short"], ["wrong"], ["wrong", "error"]])
def test_bad_answers_are_asked_for_again(remote: ShardSet, shard_set: ShardSet, plan: list[str]) -> None:
    Flaky.plan = list(plan)
    assert remote.read_member(0, "rgb.pack") == shard_set.read_member(0, "rgb.pack")
    assert Flaky.num_reads == len(plan) + 1


@pytest.mark.parametrize("what", ["error", "short", "wrong"])
def test_lasting_trouble_is_a_typed_error(remote: ShardSet, what: str) -> None:
    Flaky.plan = [what] * 20
    with pytest.raises(ShardError) as caught:
        remote.read_member(0, "rgb.pack")
    assert caught.value.where is not None
    assert "shard-000000.tar" in caught.value.where
    assert "rgb.pack of tiny-square-cam-000000" in caught.value.where
    assert caught.value.expected and caught.value.found


def test_missing_remote_file_is_not_asked_for_again(remote: ShardSet) -> None:
    MemoryFileSystem().rm("/bucket/set/shard-000000.tar")
    with pytest.raises(ShardError, match="missing"):
        remote.read_member(0, "rgb.pack")


class Stalling(AsyncFileSystem):
    """An asynchronous file system whose first ranged reads never answer."""

    protocol = "stalling"
    cachable = False
    stalls = 0

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        if start is not None and Stalling.stalls:
            Stalling.stalls -= 1
            await asyncio.sleep(60)
        name = self._strip_protocol(path).replace("stalling://", "")
        return MemoryFileSystem().cat_file("/" + name, start, end)


@pytest.mark.usefixtures("remote")
def test_a_stalled_read_is_given_up_and_asked_for_again(shard_set: ShardSet) -> None:
    fsspec.register_implementation("stalling", Stalling, clobber=True)
    stalling = open_set("stalling://bucket/set", retries=1, timeout=1.5)
    Stalling.stalls = 1
    assert stalling.read_member(0, "rgb.pack") == shard_set.read_member(0, "rgb.pack")
    Stalling.stalls = 9
    with pytest.raises(ShardError, match="2 tries of 1.5 s"):
        stalling.read_member(0, "rgb.pack")


def test_unknown_protocol_says_what_to_install() -> None:
    with pytest.raises(UsageError, match="s3fs"):
        open_set("nosuchthing://bucket/set")
