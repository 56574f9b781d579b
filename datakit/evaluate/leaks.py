"""Overlap between what a model is trained on and what it is measured on: by name of scene, and by pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import LayoutError, QualityError, UsageError
from datakit.scene import open_scene
from datakit.shards import ShardSet, decode_clip_header, decode_rgb, open_set, unpack

from .benchmarks import Entry, ReadOptions, evaluation_lists, open_benchmark, read_list
from .images_hash import HashParams, hash_items, near_pairs, spread_frames

Frames = Callable[[int], Iterator[tuple[int, NDArray[np.uint8]]]]

#: Names that say which capture they are wherever they stand in a text.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # A ScanNet space; _00, _01 ... are visits to the same rooms.
    ("scannet", re.compile(r"(?<![a-z0-9])(scene\d{4})(?:_\d{2})?(?!\d)")),
    # A Waymo segment: context id, start and end in seconds and thousandths. TAPVid-3D's DriveTrack names carry it.
    ("waymo", re.compile(r"(?<!\d)(\d{10,20}_\d+_\d{3}_\d+_\d{3})(?!\d)")),
    ("kitti", re.compile(r"(?<!\d)(\d{4}_\d{2}_\d{2}_drive_\d{4})(?!\d)")),
    ("tum", re.compile(r"(rgbd_dataset_freiburg\w+)")),
    ("bonn", re.compile(r"rgbd_bonn_(\w+)")),
)
#: CO3D sequences are three numbers; only where the dataset is known, since many names end like this.
_CO3D = re.compile(r"(?<!\d)(\d+_\d+_\d+)(?!\d)")
#: Dynamic Replica's two eyes and its passes show one scene.
_REPLICA_EYE = re.compile(r"(_source)?_(left|right)$")
#: TAPVid-3D cuts recordings into numbered chunks.
_CHUNK = re.compile(r"_\d+$")
_CHUNKED = ("adt", "pstudio")
_ALIASES = {
    "co3d": "co3dv2",
    "dynamicreplica": "dynamic_replica",
    "dr": "dynamic_replica",
    "waymo_v1": "waymo",
}
#: ScanNet's test scans are the spaces from this one on (scannetv2_test.txt: scene0707_00 to scene0806_00).
_SCANNET_TEST = range(707, 807)


@dataclass(frozen=True)
class Item:
    """A scene or clip on one side of the comparison.

    Attributes:
        name: `dataset/id`, or just a name where a list gives no more.
        origin: Where it was found, for people.
        keys: What identifies its capture; see `identity`.
        frames: Yields at most so many of its frames as (number, rgb); None for an entry of a list.
    """

    name: str
    origin: str
    keys: frozenset[str]
    frames: Frames | None = None


@dataclass(frozen=True)
class Leak:
    """A scene that is on both sides.

    Attributes:
        ours: Name of the training side's item.
        theirs: Name of the evaluation side's.
        by: "name" or "pictures".
        key: The identity they share; "" by pictures.
        frames: By pictures: (our frame, their frame, bits of pHash, bits of dHash), the nearest first.
        num_frames: Frames of theirs that have a partner.
    """

    ours: str
    theirs: str
    by: str
    key: str = ""
    frames: tuple[tuple[int, int, int, int], ...] = ()
    num_frames: int = 0


@dataclass(frozen=True)
class LeakReport:
    """What was compared and what was found.

    Attributes:
        leaks: In order of names.
        num_ours: Items of the training side.
        num_theirs: Items of the evaluation side.
        settings: How they were compared.
        thumbnails: Frame as "name#number" -> JPEG data URL, where asked for.
    """

    leaks: tuple[Leak, ...]
    num_ours: int
    num_theirs: int
    settings: Mapping[str, Any]
    thumbnails: Mapping[str, str]

    def scenes(self) -> list[str]:
        """Return the training side's leaking items."""
        return sorted({leak.ours for leak in self.leaks})

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "format": "datakit-leaks",
            "num_ours": self.num_ours,
            "num_theirs": self.num_theirs,
            "num_leaks": len(self.leaks),
            "scenes": self.scenes(),
            "settings": dict(self.settings),
            "leaks": [
                {
                    "ours": leak.ours,
                    "theirs": leak.theirs,
                    "by": leak.by,
                    "key": leak.key,
                    "num_frames": leak.num_frames,
                    "frames": [
                        dict(zip(("ours", "theirs", "phash_bits", "dhash_bits"), row, strict=True))
                        for row in leak.frames
                    ],
                }
                for leak in self.leaks
            ],
            "thumbnails": dict(self.thumbnails),
        }


def identity(dataset: str | None, name: str) -> frozenset[str]:
    """Say what identifies the capture that a scene or clip comes from.

    Args:
        dataset: Converter's or benchmark's name; None where only a name is known.
        name: Scene id, clip name or file name.

    Returns:
        Keys; two names are of the same capture if they share one. `any:` keys belong to names without a dataset.

    >>> sorted(identity("scannet", "scene0707_01")), sorted(identity(None, "scene0707_00"))
    (['scannet:scene0707'], ['scannet:scene0707'])
    >>> sorted(identity("drivetrack", "tapvid3d_9142545919543484617_86_000_106_000_2_5AKc-TYQochsSWXpv376cA"))
    ['waymo:9142545919543484617_86_000_106_000']
    """
    text = name.lower().removesuffix(".npz").removesuffix(".h5")
    source = None if dataset is None else dataset.lower()
    source = None if source is None else _ALIASES.get(source, source)
    for kind, pattern in _PATTERNS:
        found = pattern.search(text)
        if found:
            return frozenset({f"{kind}:{found.group(1)}"})
    if source == "co3dv2" and (found := _CO3D.search(text)):
        return frozenset({f"co3dv2:{found.group(1)}", f"any:{found.group(1)}", f"any:{text}"})
    if source == "dynamic_replica":
        text = _REPLICA_EYE.sub("", text)
    if source is not None and source.removesuffix("_mini") in _CHUNKED:
        text = _CHUNK.sub("", text)
    # A name of a list without a dataset can only be compared as it stands.
    return frozenset({f"any:{text}"} if source is None else {f"{source}:{text}", f"any:{text}"})


def items_of(source: str, options: ReadOptions | None = None) -> list[Item]:
    """List what one side of the comparison holds.

    Args:
        source: A shard set (folder or URL); a scene file, or a folder of them; a benchmark's data; a list that comes
            with the package (`sintel`, `sintel:23`, `bonn`, `kitti`, `scannet:test`); or a file with a name a line
            (or `tapvid3d_splits.py:minival`).
        options: How a benchmark's data is read.

    Raises:
        LayoutError: It is none of these.
        ShardError, FormatError: It cannot be read.
    """
    path = Path(source)
    if "://" in source or (path / "manifest.json").is_file():
        return _items_of_set(source)
    if path.is_dir() or path.suffix in (".h5", ".pkl"):
        benchmark = open_benchmark(path, "auto", options)
        return [_item_of_entry(entry, source) for entry in benchmark.entries]
    builtin = _builtin(source)
    if builtin is not None:
        return builtin
    file, _, split = source.rpartition(":") if not path.is_file() else (source, "", "")
    if Path(file).is_file():
        return [_item_of_name(name, source) for name in read_list(Path(file), split or None)]
    known = ", ".join(f"{b}:{name}" for b, lists in evaluation_lists().items() for name in lists)
    raise LayoutError(
        "Neither shards, scenes, a benchmark nor a list",
        where=source,
        expected=f"a folder, a file of names, or one of: {known}, scannet:test",
    )


def find_leaks(
    ours: Sequence[Item],
    theirs: Sequence[Item],
    params: HashParams | None = None,
    *,
    thumbnails: bool = False,
    progress: Callable[[str], object] | None = None,
) -> LeakReport:
    """Compare both sides.

    Args:
        ours: What is trained on.
        theirs: What is measured on.
        params: How pictures are compared; None compares names only.
        thumbnails: Keep a small JPEG of each nearest pair.
        progress: Called with the name of each item whose frames were hashed.

    Returns:
        Every pair that shares an identity, or a picture.
    """
    leaks = _by_name(ours, theirs)
    shown: dict[str, str] = {}
    settings: dict[str, Any] = {"names": True, "pictures": params is not None}
    if params is not None:
        by_pictures, facts = _by_pictures(ours, theirs, params, progress)
        leaks += by_pictures
        settings |= {
            "max_phash": params.max_phash,
            "max_dhash": params.max_dhash,
            "max_frames": params.max_frames,
        }
        settings |= {"min_contrast": params.min_contrast, **facts}
        if thumbnails:
            shown = _thumbnails(by_pictures, ours, theirs, params)
    ordered = tuple(sorted(leaks, key=lambda leak: (leak.ours, leak.theirs, leak.by)))
    return LeakReport(ordered, len(ours), len(theirs), settings, shown)


def _by_name(ours: Sequence[Item], theirs: Sequence[Item]) -> list[Leak]:
    where: dict[str, list[Item]] = {}
    for item in theirs:
        for key in item.keys:
            where.setdefault(key, []).append(item)
    found: dict[tuple[str, str], Leak] = {}
    for item in ours:
        for key in sorted(item.keys):
            for other in where.get(key, ()):
                # "any:" joins names of which one side has no dataset; two datasets may use the same plain id.
                if key.startswith("any:") and not (_is_bare(item) or _is_bare(other)):
                    continue
                found.setdefault((item.name, other.name), Leak(item.name, other.name, "name", key))
    return list(found.values())


def _is_bare(item: Item) -> bool:
    return all(key.startswith("any:") for key in item.keys)


def _by_pictures(
    ours: Sequence[Item],
    theirs: Sequence[Item],
    params: HashParams,
    progress: Callable[[str], object] | None,
) -> tuple[list[Leak], dict[str, int]]:
    hashes = []
    for items in (ours, theirs):
        frames = [() if item.frames is None else item.frames(params.max_frames) for item in items]
        done = None if progress is None else partial(_say, progress, items)
        hashes.append(hash_items(frames, params, done))
    own, other = hashes
    pairs = near_pairs(own, other, params)
    rows: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    for a, b, by_phash, by_dhash in pairs.tolist():
        rows.setdefault((int(own.item[a]), int(other.item[b])), []).append(
            (int(own.frame[a]), int(other.frame[b]), by_phash, by_dhash)
        )
    leaks = []
    for (i, j), found in rows.items():
        nearest = sorted(found, key=lambda row: (row[2] + row[3], row))
        count = len({row[1] for row in found})
        leaks.append(Leak(ours[i].name, theirs[j].name, "pictures", "", tuple(nearest[:8]), count))
    facts = {
        "frames_ours": len(own.phash),
        "frames_theirs": len(other.phash),
        "flat_frames_left_out": own.num_flat + other.num_flat,
        "items_without_frames": sum(item.frames is None for item in (*ours, *theirs)),
    }
    return leaks, facts


def _say(progress: Callable[[str], object], items: Sequence[Item], i: int) -> None:
    progress(items[i].name)


def _thumbnails(
    leaks: Iterable[Leak], ours: Sequence[Item], theirs: Sequence[Item], params: HashParams
) -> dict[str, str]:
    wanted: dict[str, set[int]] = {}
    for leak in leaks:
        for name, frame in zip(
            (f"ours:{leak.ours}", f"theirs:{leak.theirs}"), leak.frames[0][:2], strict=True
        ):
            wanted.setdefault(name, set()).add(frame)
    out = {}
    for side, items in (("ours", ours), ("theirs", theirs)):
        for item in items:
            numbers = wanted.get(f"{side}:{item.name}")
            if not numbers or item.frames is None:
                continue
            for number, rgb in item.frames(params.max_frames):
                if number in numbers:
                    out[f"{side}:{item.name}#{number}"] = _jpeg_url(rgb)
    return out


def _jpeg_url(rgb: NDArray[np.uint8], longest: int = 160) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _builtin(source: str) -> list[Item] | None:
    benchmark, _, name = source.partition(":")
    if benchmark == "scannet" and name in ("", "test"):
        spaces = [f"scene{number:04d}" for number in _SCANNET_TEST]
        return [Item(f"scannet/{space}", "scannet:test", frozenset({f"scannet:{space}"})) for space in spaces]
    lists = evaluation_lists().get(benchmark)
    if lists is None:
        return None
    if name and name not in lists:
        raise UsageError("No such list", where=source, expected=", ".join(lists), found=name)
    chosen = lists[name] if name else dict.fromkeys(clip for each in lists.values() for clip in each)
    return [Item(f"{benchmark}/{clip}", source, identity(benchmark, clip)) for clip in chosen]


def _item_of_name(name: str, origin: str) -> Item:
    dataset, _, rest = name.rpartition("/")
    return Item(name, origin, identity(dataset or None, rest))


def _item_of_entry(entry: Entry, origin: str) -> Item:
    _, _, name = entry.name.partition("/")
    if entry.files and entry.files[0].suffix == ".h5":
        with open_scene(entry.files[0]) as scene:  # a view's name is no part of the scene's
            name = scene.id
    return Item(entry.name, origin, identity(entry.source, name), partial(_frames_of_entry, entry))


def _frames_of_entry(entry: Entry, most: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    clip = entry.load()
    if clip.rgb is not None:
        for t in spread_frames(clip.num_frames, most).tolist():
            yield t, clip.rgb(t)


def _items_of_set(root: str) -> list[Item]:
    shards = open_set(root)
    clips: dict[str, list[int]] = {}
    for i in range(shards.num_clips):
        clips.setdefault(shards.scene(i), []).append(i)
    items = []
    for scene, numbers in clips.items():
        dataset, _, name = scene.partition("/")
        items.append(
            Item(scene, root, identity(dataset, name), partial(_frames_of_clips, shards, tuple(numbers)))
        )
    return items


def _frames_of_clips(
    shards: ShardSet, clips: Sequence[int], most: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield frames evenly spread over the clips of one scene, numbered as in the scene."""
    lengths = shards.num_frames[list(clips)]
    ends = np.cumsum(lengths)
    chosen = spread_frames(int(ends[-1]), most)
    which = np.searchsorted(ends, chosen, side="right")
    seen: set[int] = set()
    for k in np.unique(which).tolist():
        i = clips[k]
        data = shards.read_members(i, ("clip.json", "rgb.pack"))
        header = decode_clip_header(data["clip.json"])
        frames = unpack(data["rgb.pack"])
        for at in (chosen[which == k] - (ends[k] - lengths[k])).tolist():
            number = int(header["frame_indices"][at])
            if number not in seen:  # windows overlap
                seen.add(number)
                yield number, decode_rgb(frames[at], header)


def require_no_leaks(
    shards: Iterable[str], against: Iterable[str], *, pictures: bool = False, allow: bool = False
) -> list[str]:
    """Refuse training data that touches a scene it will be measured on.

    Args:
        shards: Shard sets of the mixture.
        against: Lists, benchmarks or sets that are measured on; see `items_of`.
        pictures: Compare pictures too; else names only, which reads no frame.
        allow: Go on all the same.

    Returns:
        The scenes that leak; empty, or allowed.

    Raises:
        QualityError: A scene leaks and `allow` is False.
    """
    ours = [item for source in shards for item in items_of(source)]
    theirs = [item for source in against for item in items_of(source)]
    report = find_leaks(ours, theirs, HashParams() if pictures else None)
    if report.leaks and not allow:
        pairs = "; ".join(f"{leak.ours} = {leak.theirs}" for leak in report.leaks[:12])
        rest = len(report.leaks) - 12
        raise QualityError(
            "The training data touches scenes of the evaluation",
            where=", ".join(against),
            expected="no scene on both sides",
            found=pairs + (f"; and {rest} more" if rest > 0 else ""),
            mend="pack without these scenes, or set leaks.allow: true and say so beside every number",
        )
    return report.scenes()
