"""Open a shard set and read members of its samples, each checked against the index."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from datakit.errors import ShardError, UsageError

from .access import NOTHING, Answer, Reader
from .index import Columns, columns_of, text_at
from .layout import INDEX, KINDS, MANIFEST
from .manifest import parse_manifest

#: Members of one clip that lie at most this far apart are fetched in one read.
_GAP = 1 << 16


@dataclass(frozen=True)
class MemberLocation:
    """Where a member's data lies.

    Attributes:
        shard: File name of the shard.
        offset: First byte of the data in it.
        length: Bytes.
        xxh3: 64-bit xxh3 of the data.
    """

    shard: str
    offset: int
    length: int
    xxh3: int


class ShardSet:
    """An open set; made by `open_set`. Clips are numbered 0..num_clips - 1 in the order of the shards.

    Attributes:
        manifest: Content of `manifest.json`.
        reader: Reads its files.
        columns: The index (`docs/shards.md` lists the columns), memory-mapped where the set is local.
    """

    def __init__(self, reader: Reader, manifest: dict[str, Any], columns: Columns) -> None:
        self.reader = reader
        self.manifest = manifest
        self.columns = columns
        self._shards = [shard["name"] for shard in manifest["shards"]]

    def __repr__(self) -> str:
        return f"ShardSet({self.reader.root}, {self.num_clips} clips, {self.manifest_sha256[:12]})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map does not travel; the other process opens the set anew and must find the same one.
        return _reopen, (self.reader, self.manifest_sha256)

    @property
    def manifest_sha256(self) -> str:
        """Stands for every byte of the set."""
        return str(self.manifest["manifest_sha256"])

    @property
    def num_clips(self) -> int:
        """C."""
        return len(self.columns["shard"])

    @property
    def num_frames(self) -> NDArray[np.int32]:
        """(C,) frames of each clip."""
        return self.columns["num_frames"]

    @property
    def datasets(self) -> list[str]:
        """Names that `dataset_of` numbers."""
        return list(self.manifest["names"]["dataset"])

    @property
    def dataset_of(self) -> NDArray[np.int16]:
        """(C,) dataset of each clip, as a position in `datasets`."""
        return self.columns["dataset"]

    def names_of(self, column: str) -> list[str]:
        """Names that a code column stands for: dataset, licence, scale, certificate, time_kind, depth_kind."""
        return list(self.manifest["names"][column])

    def key(self, i: int) -> str:
        """Key of clip i."""
        return text_at(self.columns, "key", self._checked(i))

    def scene(self, i: int) -> str:
        """dataset/id of the scene that clip i was cut from."""
        return text_at(self.columns, "scene", self._checked(i))

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {self.key(i): i for i in range(self.num_clips)}

    def find(self, key: str) -> int:
        """Number of the clip with this key.

        Raises:
            UsageError: There is none.
        """
        if key not in self._number_of:
            from difflib import get_close_matches

            near = get_close_matches(key, self._number_of, n=1)
            raise UsageError(
                "No clip with this key", where=self.reader.root, expected=near or None, found=key
            )
        return self._number_of[key]

    def has_member(self, i: int, kind: str) -> bool:
        """Say whether clip i has this member."""
        return bool(self.columns["member_offset"][self._checked(i), _kind_number(kind)] >= 0)

    def member(self, i: int, kind: str) -> MemberLocation:
        """Locate a member.

        Args:
            i: Clip.
            kind: One of `layout.KINDS`.

        Raises:
            UsageError: No such clip, or it has no such member.
        """
        k = _kind_number(kind)
        offset = int(self.columns["member_offset"][self._checked(i), k])
        if offset < 0:
            raise UsageError("Clip has no such member", where=self.key(i), found=kind)
        return MemberLocation(
            self._shards[int(self.columns["shard"][i])],
            offset,
            int(self.columns["member_length"][i, k]),
            int(self.columns["member_xxh3"][i, k]),
        )

    def read_member(self, i: int, kind: str, check: bool = True) -> bytes:
        """Read one member.

        Args:
            i: Clip.
            kind: One of `layout.KINDS`.
            check: Compare with the index's checksum.

        Raises:
            ShardError: The shard is missing or short, cannot be read, or the data is not what was packed.
            UsageError: No such clip or member.
        """
        return bytes(self.read_members(i, (kind,), check)[kind])

    def read_members(self, i: int, kinds: Iterable[str], check: bool = True) -> dict[str, memoryview]:
        """Read several members of a clip, in one request where they lie side by side.

        Args:
            i: Clip.
            kinds: Some of `layout.KINDS` that the clip has.
            check: Compare with the index's checksums; a remote read that differs is fetched once more.

        Raises:
            ShardError: As of `read_member`.
            UsageError: No such clip or member.
        """
        located = sorted(((self.member(i, kind), kind) for kind in set(kinds)), key=lambda at: at[0].offset)
        out: dict[str, memoryview] = {}
        for group in _adjoining(located):
            data = self._read_group(i, group)
            bad = self._first_bad(i, group, data) if check else None
            if bad is not None and not self.reader.is_local:
                data = self._read_group(i, group)  # what differed on the way only will not differ again
                bad = self._first_bad(i, group, data)
            if bad is not None:
                raise bad
            out |= data
        return out

    def _read_group(self, i: int, group: list[tuple[MemberLocation, str]]) -> dict[str, memoryview]:
        first, last = group[0][0], group[-1][0]
        try:
            data = self.reader.read(first.shard, first.offset, last.offset + last.length - first.offset)
        except ShardError as error:
            kinds = ", ".join(kind for _, kind in group)
            raise ShardError(
                error.what,
                where=f"{error.where}, member {kinds} of {self.key(i)}",
                expected=error.expected,
                found=error.found,
                mend=error.mend,
            ) from error
        view = memoryview(data)
        return {kind: view[at.offset - first.offset :][: at.length] for at, kind in group}

    def _first_bad(
        self, i: int, group: list[tuple[MemberLocation, str]], data: dict[str, memoryview]
    ) -> ShardError | None:
        for at, kind in group:
            found = xxhash.xxh3_64_intdigest(data[kind])
            if found != at.xxh3:
                return ShardError(
                    "Member is corrupt",
                    where=f"{self.reader.place(at.shard)}, member {kind} of {self.key(i)}, "
                    f"bytes {at.offset}..{at.offset + at.length}",
                    expected=f"xxh3 {at.xxh3:016x}",
                    found=f"xxh3 {found:016x}",
                    mend="fetch the shard again, or pack again; datakit verify names all that is corrupt",
                )
        return None

    def _checked(self, i: int) -> int:
        if not 0 <= i < self.num_clips:
            raise UsageError(
                "No such clip", where=self.reader.root, expected=f"0..{self.num_clips - 1}", found=i
            )
        return i


def _kind_number(kind: str) -> int:
    if kind not in KINDS:
        raise UsageError("Unknown kind of member", expected=KINDS, found=kind)
    return KINDS.index(kind)


def _adjoining(located: list[tuple[MemberLocation, str]]) -> list[list[tuple[MemberLocation, str]]]:
    groups: list[list[tuple[MemberLocation, str]]] = []
    for at, kind in located:
        if groups:
            before = groups[-1][-1][0]
            if at.offset - (before.offset + before.length) <= _GAP:
                groups[-1].append((at, kind))
                continue
        groups.append([(at, kind)])
    return groups


def open_set(
    root: str | Path,
    *,
    storage_options: dict[str, Any] | None = None,
    retries: int = 6,
    timeout: float = 30.0,
    first_wait: float = 0.2,
) -> ShardSet:
    """Open a shard set.

    The manifest is checked against its own hash and the index against the manifest; shards are not opened.

    Args:
        root: Folder, or URL of one that fsspec knows (s3://, gs://, https:// ...).
        storage_options: For the fsspec file system.
        retries: Further tries of a remote read, as of `Reader`.
        timeout: Seconds of one try.
        first_wait: Seconds before the second try.

    Raises:
        ShardError: No complete set is there, or its manifest or index was altered.
        UsageError: No file system for the URL, or a number is out of range.
    """
    return _open(
        Reader(
            str(root),
            storage_options=storage_options,
            retries=retries,
            timeout=timeout,
            first_wait=first_wait,
        )
    )


def _open(reader: Reader) -> ShardSet:
    manifest = read_manifest(reader)
    index = _mapped(reader, manifest["index"]) if reader.is_local else read_table(reader, manifest["index"])
    return ShardSet(reader, manifest, columns_of(index, reader.place(INDEX)))


def _reopen(reader: Reader, manifest_sha256: str) -> ShardSet:
    shard_set = _open(reader)
    if shard_set.manifest_sha256 != manifest_sha256:
        raise ShardError(
            "The set was replaced while in use",
            where=reader.root,
            expected=manifest_sha256,
            found=shard_set.manifest_sha256,
        )
    return shard_set


def read_manifest(reader: Reader) -> dict[str, Any]:
    """Read and check the manifest of a set.

    Raises:
        ShardError: There is none, it cannot be read, or it was altered.
    """
    try:
        return _checked(
            reader, lambda: reader.read(MANIFEST), lambda data: parse_manifest(data, reader.place(MANIFEST))
        )
    except ShardError as error:
        if error.found != NOTHING:
            raise
        raise ShardError(
            "No complete shard set",
            where=reader.root,
            expected=MANIFEST,
            found=error.what,
            mend="run datakit pack to its end",
        ) from error


def read_table(reader: Reader, entry: dict[str, Any]) -> bytes:
    """Read a whole file that the manifest lists, and check it.

    Args:
        reader: Of the set.
        entry: "name", "size" and "sha256", from the manifest.

    Raises:
        ShardError: It is missing, cannot be read, or is not what was packed.
    """

    def check(data: bytes) -> bytes:
        check_file(reader.place(entry["name"]), data, entry)
        return data

    # A remote file is asked for by its size: in pieces, and a short answer is asked for again.
    length = None if reader.is_local else entry["size"]
    return _checked(reader, lambda: reader.read(entry["name"], 0, length), check)


def _checked(reader: Reader, read: Callable[[], bytes], check: Callable[[bytes], Answer]) -> Answer:
    """Read and check; a remote answer that fails the check is fetched once more: it may differ on the way only."""
    data = read()
    try:
        return check(data)
    except ShardError:
        if reader.is_local:
            raise
    return check(read())


def _mapped(reader: Reader, entry: dict[str, Any]) -> mmap.mmap:
    """Map a local file that the manifest lists, and check it."""
    place = reader.place(entry["name"])
    try:
        with open(place, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ShardError("Index cannot be read", where=place, found=error) from error
    check_file(place, data, entry)
    return data


def check_file(where: str, data: Any, entry: dict[str, Any]) -> None:
    """Compare a whole file with its entry in the manifest.

    Raises:
        ShardError: Its size or sha256 differ.
    """
    if len(data) != entry["size"]:
        raise ShardError(
            "File has another size than the manifest says",
            where=where,
            expected=f"{entry['size']} bytes",
            found=f"{len(data)} bytes",
        )
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        raise ShardError(
            "File is corrupt", where=where, expected=f"sha256 {entry['sha256']}", found=f"sha256 {found}"
        )
