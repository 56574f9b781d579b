"""The doctor: what a native tree holds and lacks, from names, sizes, headers and file ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from converters.native.png import ends_like_png
from converters.native.tfrecord import walk_records
from datakit.convert.api import Probe, Problem
from datakit.errors import DatakitError

from . import movi, tfds, worker
from .assemble import LAYER_OF
from .card import NAME, SUPERVISION
from .discover import find_folders
from .metadata import parse_json
from .tiff import pixels_end

_MEND_CLIP = "Render or copy the clip again."
_MEND_SHARD = "Download the shard again."
#: Bytes of a TIFF read in search of its directory.
_TIFF_HEAD = 4096


@dataclass
class _Tally:
    forms: Counter[str] = field(default_factory=Counter)
    scenes: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    layers: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def error(self, where: object, what: object, mend: str) -> None:
        self.problems.append(Problem("error", str(where), str(what), mend))


def probe(root: Path) -> Probe:
    """Look at a native tree without converting it. Bad content is reported, not raised.

    Checked: JSON files parse, every layer has all its frames, PNG and TIFF files begin and end as such, every
        TFRecord
    header has the right CRC and fits its file, shards hold as many records as dataset_info.json says.
    """
    tally = _Tally()
    try:
        for form, relative in find_folders(root):
            (_probe_clip if form == "worker" else _probe_config)(root, relative, tally)
    except (DatakitError, OSError) as err:
        tally.error(root, err, "")
    if not tally.forms and not tally.problems:
        tally.error(root, "no Kubric clips or TFDS configs found", "Point to a folder that holds some.")
    return Probe(
        dataset=NAME,
        variant=", ".join(f"{form} ({num})" for form, num in sorted(tally.forms.items())) or "none",
        num_scenes=dict(tally.scenes),
        num_bytes=tally.num_bytes,
        supervision=tuple(s for s in SUPERVISION if s.split()[0].rstrip(":") in tally.layers | {"motion"}),
        problems=tuple(tally.problems),
    )


def _probe_clip(root: Path, relative: Path, tally: _Tally) -> None:
    folder = root / relative
    tally.forms["worker folders"] += 1
    tally.scenes["none"] += 1
    try:
        tally.num_bytes += worker.clip_ref(root, relative).num_bytes
        path = folder / "metadata.json"
        if not path.is_file():
            tally.error(path, "metadata.json is missing; the worker may not have finished", _MEND_CLIP)
            return
        clip = worker.read_clip(path.read_bytes(), str(path))
        files = worker.frame_files(folder, clip.num_frames)
        tally.layers |= {LAYER_OF[name] for name in files}
        tally.problems += _clip_problems(folder, set(files))
        for names in files.values():
            for name in names:
                if not _is_whole_image(folder / name):
                    tally.error(folder / name, "truncated or not an image of its kind", _MEND_CLIP)
    except (DatakitError, OSError) as err:
        tally.error(folder, err, _MEND_CLIP)


def _clip_problems(folder: Path, layers: set[str]) -> Iterator[Problem]:
    for name in worker.OPTIONAL:
        if name not in layers:
            yield Problem("warning", str(folder), f"layer {name} is absent", "")
    for name, needed in (("data_ranges.json", bool(layers & set(worker.FLOWS))), ("events.json", False)):
        path = folder / name
        if not path.is_file():
            yield Problem("error" if needed else "warning", str(path), f"{name} is missing", _MEND_CLIP)
            continue
        try:
            parse_json(path.read_bytes(), path)
        except DatakitError as err:
            yield Problem("error", str(path), str(err), _MEND_CLIP)


def _is_whole_image(path: Path) -> bool:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if path.suffix == ".tiff":
            # Kubric's TIFFs begin with their directory; other writers may put it last.
            head = file.read(_TIFF_HEAD)
            return _is_whole_tiff(head, size) or _is_whole_tiff(head + file.read(), size)
        head = file.read(8)
        file.seek(max(0, size - 12))
        return ends_like_png(head, file.read())


def _is_whole_tiff(head: bytes, size: int) -> bool:
    try:
        return pixels_end(head, "") <= size
    except DatakitError:
        return False


def _probe_config(root: Path, relative: Path, tally: _Tally) -> None:
    try:
        config = tfds.read_config(root, relative, [])
    except (DatakitError, OSError) as err:
        tally.forms["TFDS"] += 1
        tally.error(root / relative, err, "Download the folder's JSON files again.")
        return
    tally.forms[f"TFDS {config.name}/{config.config}"] += 1
    tally.layers |= {LAYER_OF[n] for n in movi.REQUIRED + movi.OPTIONAL if n in config.declared}
    for name in movi.REQUIRED + movi.OPTIONAL:
        if name not in config.declared:
            severity = "error" if name in movi.REQUIRED else "warning"
            tally.problems.append(
                Problem(severity, str(root / relative), f"feature {name} is not declared", "")
            )
    for shard in config.shards:
        _probe_shard(shard, tally)


def _probe_shard(shard: tfds.Shard, tally: _Tally) -> None:
    if not shard.path.is_file():
        mend = "Download it, or set allow_missing_shards to convert what is there."
        tally.error(shard.path, f"shard of {shard.num_records} records is missing", mend)
        return
    tally.num_bytes += shard.path.stat().st_size
    found = 0
    try:
        for _ in walk_records(shard.path):
            found += 1
    except DatakitError as err:
        tally.error(shard.path, err, _MEND_SHARD)
    else:
        if found != shard.num_records:
            tally.error(
                shard.path, f"{found} records, dataset_info.json says {shard.num_records}", _MEND_SHARD
            )
    tally.scenes[shard.split] += found
