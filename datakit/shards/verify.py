"""Find everything in a set that is not as it was packed, and name it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datakit.errors import ShardError

from .access import Reader
from .index import columns_of
from .layout import INDEX, KINDS, MANIFEST
from .reader import ShardSet, read_manifest, read_table
from .tar import end_of_archive, member_header, padding

_CHUNK = 1 << 23


def verify(
    root: str | Path,
    quick: bool = False,
    *,
    storage_options: dict[str, Any] | None = None,
    retries: int = 6,
    timeout: float = 30.0,
    first_wait: float = 0.2,
    progress: bool = False,
) -> list[ShardError]:
    """Check a set.

    Args:
        root: Folder or URL.
        quick: Check the manifest, the index, the list of scenes, and that every shard is there with its size; the
            bytes of the shards are not read.
        storage_options: For the fsspec file system.
        retries: Further tries of a remote read, as of `Reader`.
        timeout: Seconds of one try.
        first_wait: Seconds before the second try.
        progress: Show a progress bar on the error stream.

    Returns:
        Every problem found; empty for a sound set. A flipped bit anywhere in any file of the set is a problem, and
        so is a file in a local folder that is not of the set. What is damaged remotely was read twice.
    """
    reader = Reader(
        str(root), storage_options=storage_options, retries=retries, timeout=timeout, first_wait=first_wait
    )
    try:
        manifest = read_manifest(reader)
    except ShardError as error:
        return [error]
    problems: list[ShardError] = []
    shard_set = None
    for entry in (manifest["index"], manifest["scenes"]):
        try:
            data = read_table(reader, entry)
        except ShardError as error:
            problems.append(error)
        else:
            problems += [] if reader.is_local else _look_at_size(reader, entry)[1]
            if entry["name"] == INDEX:
                shard_set = ShardSet(reader, manifest, columns_of(data, reader.place(INDEX)))
    problems += _strangers(reader, manifest)
    total = sum(shard["size"] for shard in manifest["shards"])
    with tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=not progress or quick) as bar:
        for number, shard in enumerate(manifest["shards"]):
            size, wrong = _look_at_size(reader, shard)
            problems += wrong
            if not quick and size is not None:
                problems += _look_at_shard(reader, shard, size, number, shard_set)
            bar.update(shard["size"])
    return problems


def _strangers(reader: Reader, manifest: dict[str, Any]) -> list[ShardError]:
    """Find what else lies in a local set; foreign tars, most of all, are read by whoever opens `*.tar`."""
    if not reader.is_local:
        return []
    known = {MANIFEST, manifest["index"]["name"], manifest["scenes"]["name"]}
    known |= {shard["name"] for shard in manifest["shards"]}
    return [
        ShardError(
            "File does not belong to the set",
            where=path,
            expected=f"the {len(known)} files of the manifest",
            found=path.name,
            mend="move it elsewhere",
        )
        for path in sorted(Path(reader.root).iterdir())
        if path.name not in known
    ]


def _look_at_size(reader: Reader, entry: dict[str, Any]) -> tuple[int | None, list[ShardError]]:
    """Ask for a file's size: (bytes, or None where there is no file to read, and what is wrong)."""
    try:
        size = reader.size(entry["name"])
    except ShardError as error:
        return None, [error]
    if size == entry["size"]:
        return size, []
    what = "Shard" if entry["name"].endswith(".tar") else "File"
    problem = ShardError(
        f"{what} is truncated" if size < entry["size"] else f"{what} is too long",
        where=reader.place(entry["name"]),
        expected=f"{entry['size']} bytes",
        found=f"{size} bytes",
    )
    return size, [problem]


class _Cursor:
    """Reads a shard of `size` bytes from front to back in large pieces, hashing it on the way."""

    def __init__(self, reader: Reader, name: str, size: int) -> None:
        self._reader, self._name, self._size = reader, name, size
        self._ahead = memoryview(b"")
        self.at = 0
        self.sha256 = hashlib.sha256()

    def chunks(self, length: int) -> Iterator[memoryview]:
        """Read on by `length` bytes."""
        end = self.at + length
        while self.at < end:
            if not self._ahead:
                # Beyond the file's end this asks for what is expected there, and the reader says that it is not.
                wanted = min(_CHUNK, self._size - self.at) if self.at < self._size else end - self.at
                self._ahead = memoryview(self._reader.read(self._name, self.at, wanted))
            data = self._ahead[: end - self.at]
            self._ahead = self._ahead[len(data) :]
            self.at += len(data)
            self.sha256.update(data)
            yield data

    def take(self, length: int) -> bytes:
        """Read on by `length` bytes at once."""
        return b"".join(self.chunks(length))


def _look_at_shard(
    reader: Reader, shard: dict[str, Any], size: int, number: int, shard_set: ShardSet | None
) -> list[ShardError]:
    """Check a shard; a remote one that differs once more: what differed on the way only will not differ again."""
    problems, is_readable = _check_shard(reader, shard, size, number, shard_set)
    if problems and is_readable and not reader.is_local:
        problems, _ = _check_shard(reader, shard, size, number, shard_set)
    return problems


def _check_shard(
    reader: Reader, shard: dict[str, Any], size: int, number: int, shard_set: ShardSet | None
) -> tuple[list[ShardError], bool]:
    """Compare every byte of a shard with what the index says must be there.

    Returns:
        What is wrong, and whether all of it could be read.
    """
    cursor = _Cursor(reader, shard["name"], size)
    where = reader.place(shard["name"])
    problems: list[ShardError] = []
    try:
        if shard_set is not None:
            for name, length, sha256 in _members_of(shard_set, number):
                problems += _check_member(cursor, where, name, length, sha256)
            end = end_of_archive(cursor.at)
            if cursor.take(len(end)) != end:
                problems.append(_differs("End of the archive", where, "zeros", "other bytes"))
        for _ in cursor.chunks(shard["size"] - cursor.at):
            pass  # without an index only the hash of the whole shard can be checked
    except ShardError as error:
        return [*problems, error], False
    found = cursor.sha256.hexdigest()
    if found != shard["sha256"] and not problems:
        problems.append(_differs("Shard", where, f"sha256 {shard['sha256']}", f"sha256 {found}"))
    return problems, True


def _members_of(shard_set: ShardSet, number: int) -> Iterator[tuple[str, int, bytes]]:
    columns = shard_set.columns
    for i in (columns["shard"] == number).nonzero()[0].tolist():
        key = shard_set.key(i)
        for k, kind in enumerate(KINDS):
            if columns["member_offset"][i, k] >= 0:
                yield (
                    f"{key}.{kind}",
                    int(columns["member_length"][i, k]),
                    columns["member_sha256"][i, k].tobytes(),
                )


def _check_member(cursor: _Cursor, where: str, name: str, length: int, sha256: bytes) -> list[ShardError]:
    problems = []
    start = cursor.at
    header = member_header(name, length)
    at = partial("{}, member {}, {} bytes {}..{}".format, where, name)
    try:
        if cursor.take(len(header)) != header:
            problems.append(
                _differs(
                    "Tar header", at("header", start, cursor.at), "the header that pack writes", "another"
                )
            )
        first, digest = cursor.at, hashlib.sha256()
        for chunk in cursor.chunks(length):
            digest.update(chunk)
        if digest.digest() != sha256:
            expected, found = f"sha256 {sha256.hex()}", f"sha256 {digest.hexdigest()}"
            problems.append(_differs("Member", at("data", first, cursor.at), expected, found))
        first, fill = cursor.at, padding(length)
        if cursor.take(len(fill)) != fill:
            problems.append(_differs("Padding", at("padding", first, cursor.at), "zeros", "other bytes"))
    except ShardError as error:
        raise ShardError(
            error.what, where=at("", start, cursor.at), expected=error.expected, found=error.found
        ) from error
    return problems


def _differs(what: str, where: str, expected: str, found: str) -> ShardError:
    return ShardError(
        f"{what} is corrupt",
        where=where,
        expected=expected,
        found=found,
        mend="fetch it again, or pack again",
    )
