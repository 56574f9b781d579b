"""The work folder of a running pack: finished clips and shards, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from datakit.scene import Scene, open_scene

from .clips import Clip, Origin, Window, make_clip
from .index import Entry
from .layout import canonical_json, shard_name
from .overlaps import set_windows
from .params import PackParams
from .tar import end_of_archive, member_header, padding

WORK = ".pack-work"
_COPY = 1 << 22


def write_whole(path: Path, *parts: bytes) -> None:
    """Write a file so that it exists only when it is whole and on the disk."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@dataclass(frozen=True)
class ClipTask:
    """One clip to make: tar fragment and note go to `folder` under the clip's number."""

    folder: Path
    number: int
    scene: Path
    window: Window
    origin: Origin
    params: PackParams
    covisibility: Path | None = None


@dataclass(frozen=True)
class SetTask:
    """Windows to choose for a set of photos: the note goes to `folder` under the scene's number in the plan."""

    folder: Path
    number: int
    scene: Path
    views: tuple[str, ...]
    params: PackParams
    covisibility: Path | None
    scene_sha256: str


def fragment_path(folder: Path, number: int) -> Path:
    """Where the tar fragment of a clip lies until its shard is finished."""
    return folder / f"{number:08d}.tar"


def _note_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.json"


def _set_note_path(folder: Path, number: int) -> Path:
    return folder / f"set-{number:08d}.json"


class _OpenScene:
    """Keeps the last scene open: adjoining tasks of a worker mostly read the same one."""

    def __init__(self) -> None:
        self._scene: Scene | None = None

    def at(self, path: Path) -> Scene:
        if self._scene is None or self._scene.path != path:
            self.close()
            self._scene = open_scene(path)
        return self._scene

    def close(self) -> None:
        if self._scene is not None:
            self._scene.close()
            self._scene = None


OPEN_SCENE = _OpenScene()


def run_task(task: ClipTask) -> dict[str, Any]:
    """Make a clip and write its fragment, then its note, which is returned."""
    clip = make_clip(OPEN_SCENE.at(task.scene), task.window, task.origin, task.params, task.covisibility)
    parts: list[bytes] = []
    members: dict[str, list[Any]] = {}
    at = 0
    for kind, data in clip.members:
        header = member_header(f"{clip.key}.{kind}", len(data))
        at += len(header)
        members[kind] = [at, len(data), xxhash.xxh3_64_hexdigest(data), hashlib.sha256(data).hexdigest()]
        parts += [header, data, padding(len(data))]
        at += len(data) + len(parts[-1])
    note = _note(task, clip, members, at)
    write_whole(fragment_path(task.folder, task.number), *parts)
    write_whole(_note_path(task.folder, task.number), canonical_json(note))
    return note


def run_set_task(task: SetTask) -> dict[str, Any]:
    """Choose the windows of a scene's views and write the note, which is returned.

    Returns:
        By view [what they were chosen by, [[name of the window, its photos], ...]].
    """
    scene = OPEN_SCENE.at(task.scene)
    found = {
        view: set_windows(scene, view, task.params, task.covisibility, task.scene_sha256)
        for view in task.views
    }
    note = canonical_json(found)
    write_whole(_set_note_path(task.folder, task.number), note)
    chosen: dict[str, Any] = json.loads(note)
    return chosen


def read_set_note(folder: Path, number: int) -> dict[str, Any] | None:
    """Return the windows that an earlier run chose for a scene; None where they have to be chosen."""
    path = _set_note_path(folder, number)
    return json.loads(path.read_bytes()) if path.is_file() else None


def _note(task: ClipTask, clip: Clip, members: dict[str, list[Any]], size: int) -> dict[str, Any]:
    header = clip.header
    return {
        "key": clip.key,
        "dataset": header["dataset"],
        "scene": header["scene"],
        "licence": header["licence"],
        "scale": header["scale"],
        "time_kind": header["time_kind"],
        "certificate": header["certificate_level"],
        "scene_sha256": header["scene_sha256"],
        "certificate_sha256": header["certificate_sha256"],
        "num_frames": task.window.num_frames,
        "start_frame": task.window.start,
        "depth_kind": header["z_depth"]["kind"] if "z_depth" in header else None,
        "motion_kinds": list(clip.motion_kinds),
        "has_tracks": "points_world" in header["arrays"],
        "difficulty": header["difficulty"],
        "overlap": clip.overlap.hex(),
        "members": members,
        "size": size,
    }


def read_note(folder: Path, number: int, needs_fragment: bool) -> dict[str, Any] | None:
    """Return the note of a finished clip; None where it has to be made (again)."""
    path = _note_path(folder, number)
    if not path.is_file():
        return None
    note: dict[str, Any] = json.loads(path.read_bytes())
    fragment = fragment_path(folder, number)
    if needs_fragment and (not fragment.is_file() or fragment.stat().st_size != note["size"]):
        return None
    return note


def prepare_work(out: Path, plan_sha256: str) -> Path:
    """Open the work folder for a plan; what another plan left unfinished is removed.

    Returns:
        The folder.
    """
    work = out / WORK
    mark = work / "plan"
    if not mark.is_file() or mark.read_text() != plan_sha256:
        shutil.rmtree(work, ignore_errors=True)
        for stray in out.glob("shard-*.tar"):
            stray.unlink()
        work.mkdir()
        write_whole(mark, plan_sha256.encode())
    for partial in (*out.glob("*.partial"), *work.glob("*.partial")):
        partial.unlink()
    return work


@dataclass
class Assembler:
    """Joins fragments, in order, into shards.

    Attributes:
        out: Folder of the set.
        work: Its work folder.
        shard_bytes: A shard is closed before it would grow past this.
        shards: {"name", "size", "sha256", "num_clips"} of the finished ones.
        shard_of: Shard number of each clip so far.
        offset_of: Where each clip begins in it.
    """

    out: Path
    work: Path
    shard_bytes: int
    shards: list[dict[str, Any]] = field(default_factory=list)
    shard_of: list[int] = field(default_factory=list)
    offset_of: list[int] = field(default_factory=list)
    _size: int = 0
    _open: list[int] = field(default_factory=list)

    def num_finished(self) -> int:
        """Take over the shards that an earlier run finished.

        Returns:
            How many clips lie in them.
        """
        total = 0
        while (note := self.work / f"{shard_name(len(self.shards))}.json").is_file():
            shard = json.loads(note.read_bytes())
            path = self.out / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["size"]:
                break
            self.shards.append(shard)
            total += shard["num_clips"]
        return total

    def skip(self, notes: list[Entry]) -> None:
        """Account for the clips of the finished shards."""
        at = 0
        for number, shard in enumerate(self.shards):
            offset = 0
            for entry in notes[at : at + shard["num_clips"]]:
                self.shard_of.append(number)
                self.offset_of.append(offset)
                offset += entry["size"]
            at += shard["num_clips"]

    def add(self, number: int, entry: Entry) -> None:
        """Put the clip of this number into the current shard, closing it first if it would grow too large."""
        if self._open and self._size + entry["size"] > self.shard_bytes:
            self.finish()
        self.shard_of.append(len(self.shards))
        self.offset_of.append(self._size)
        self._open.append(number)
        self._size += entry["size"]

    def finish(self) -> None:
        """Write the current shard from its fragments, which are removed."""
        if not self._open:
            return
        name = shard_name(len(self.shards))
        partial = self.out / f"{name}.partial"
        digest = hashlib.sha256()
        with open(partial, "wb") as file:
            for number in self._open:
                with open(fragment_path(self.work, number), "rb") as fragment:
                    while chunk := fragment.read(_COPY):
                        digest.update(chunk)
                        file.write(chunk)
            end = end_of_archive(self._size)
            digest.update(end)
            file.write(end)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.out / name)
        shard = {
            "name": name,
            "size": self._size + len(end),
            "sha256": digest.hexdigest(),
            "num_clips": len(self._open),
        }
        write_whole(self.work / f"{name}.json", canonical_json(shard))
        self.shards.append(shard)
        for number in self._open:
            fragment_path(self.work, number).unlink()
        self._open, self._size = [], 0
