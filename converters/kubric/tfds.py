"""MOVi sets as TensorFlow Datasets stores them: configs, shards, records, declared features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.native.files import field, identifier, inside, read_source
from converters.native.tfrecord import walk_records
from datakit.convert.api import SceneRef
from datakit.errors import FormatError, LayoutError
from datakit.scene.records import SourceFile

from .metadata import parse_json
from .params import Params

INFO, FEATURES = "dataset_info.json", "features.json"
#: Characters of the longest name of a file (NAME_MAX of Linux), or of a feature, that is believed.
_MAX_NAME = 255
_DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class Shard:
    """One file of a split. `num_records` is what dataset_info.json promises."""

    split: str
    index: int
    path: Path
    num_records: int


@dataclass(frozen=True)
class Config:
    """One version folder of one config.

    Attributes:
        relative: The folder below the root.
        name: "movi_e".
        config: "128x128".
        shards: In the order of dataset_info.json.
        declared: Flat feature keys of features.json -> their JSON.
        labels: Flat key -> class names, from the *.labels.txt files.
    """

    relative: Path
    name: str
    config: str
    shards: tuple[Shard, ...]
    declared: dict[str, dict[str, Any]]
    labels: dict[str, tuple[str, ...]]

    @property
    def num_frames(self) -> int | None:
        """T as declared, or None where features.json does not fix it."""
        video = self.declared.get("video", {})
        try:
            return int(video["video"]["shape"]["dimensions"][0])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            return None


def is_config(names: set[str]) -> bool:
    """Tell from its file names whether a folder is a TFDS version folder."""
    return INFO in names or FEATURES in names


def read_config(root: Path, relative: Path, sources: list[SourceFile]) -> Config:
    """Read dataset_info.json, features.json and the label files of a version folder.

    Args:
        root: The dataset's root.
        relative: The folder below it.
        sources: The files read are added here.

    Raises:
        LayoutError: A file is missing or leaves the root. FormatError: malformed.
    """
    info_where = root / relative / INFO
    info = parse_json(read_source(root, relative / INFO, sources), info_where)
    features_where = root / relative / FEATURES
    features = parse_json(read_source(root, relative / FEATURES, sources), features_where)
    name = _name(field(info, "name", info_where), info_where)
    return Config(
        relative=relative,
        name=name,
        config=str(info.get("configName") or (root / relative).resolve().parent.name),
        shards=tuple(_shards(root, relative, info, name)),
        declared=dict(_flatten(features, "", features_where)),
        labels=_labels(root, relative, sources),
    )


def _shards(root: Path, relative: Path, info: dict[str, Any], name: str) -> Iterator[Shard]:
    where = f"{root / relative / INFO}: splits"
    file_format = _name(info.get("fileFormat") or "tfrecord", where)
    for split in _list(field(info, "splits", where), where):
        split_name = _name(field(split, "name", where), where)
        try:
            lengths = [int(n) for n in field(split, "shardLengths", where)]
        except (TypeError, ValueError, OverflowError) as err:
            raise FormatError(
                "Shard lengths are not integers.", where=f"{where}.{split_name}", found=err
            ) from err
        template = _name(split.get("filepathTemplate") or _DEFAULT_TEMPLATE, where)
        for index, num in enumerate(lengths):
            file = _expand(template, name, split_name, file_format, index, len(lengths))
            _name(file, where)
            yield Shard(split_name, index, inside(root, relative / file), num)


def _name(value: Any, where: Path | str) -> str:
    """Check a name, or what names are made of: NULs and lone surrogates are in none, and none is longer."""
    if not isinstance(value, str) or len(value) > _MAX_NAME or not value.isprintable():
        raise FormatError(
            "Not a name.",
            where=where,
            expected=f"at most {_MAX_NAME} printable characters",
            found=repr(value)[:80],
        )
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError("Not a list.", where=where, found=type(value).__name__)
    return value


def _expand(template: str, name: str, split: str, file_format: str, index: int, total: int) -> str:
    values = {
        "{DATASET}": name,
        "{SPLIT}": split,
        "{FILEFORMAT}": file_format,
        "{SHARD_X_OF_Y}": f"{index:05d}-of-{total:05d}",
        "{SHARD_INDEX}": f"{index:05d}",
        "{NUM_SHARDS}": f"{total:05d}",
    }
    for key, value in values.items():
        template = template.replace(key, value)
    return template


def _flatten(node: dict[str, Any], prefix: str, where: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk features.json to the keys that a record has; TFDS joins nested names with "/"."""
    _name(prefix, where)
    sequence = node.get("sequence") if isinstance(node, dict) else None
    inner = sequence.get("feature") if isinstance(sequence, dict) else None
    if isinstance(inner, dict) and "featuresDict" in inner:
        node = inner
    if not isinstance(node, dict) or "featuresDict" not in node:
        yield prefix, node
        return
    children = field(node["featuresDict"], "features", where)
    if not isinstance(children, dict):
        raise FormatError("Not an object.", where=f"{where}: features", found=type(children).__name__)
    for name, child in children.items():
        yield from _flatten(child, f"{prefix}/{name}" if prefix else name, where)


def _labels(root: Path, relative: Path, sources: list[SourceFile]) -> dict[str, tuple[str, ...]]:
    labels = {}
    for path in sorted((root / relative).glob("*.labels.txt")):
        text = read_source(root, relative / path.name, sources).decode("utf-8", errors="replace")
        labels[path.name.removesuffix(".labels.txt").replace("-", "/")] = tuple(text.splitlines())
    return labels


def config_refs(root: Path, relative: Path, params: Params) -> Iterator[SceneRef]:
    """List the records of a version folder, in the order of its splits and shards, by their headers only.

    Raises:
        LayoutError: A shard is missing (unless `allow_missing_shards`).
        FormatError: A shard is truncated, or holds another number of records than dataset_info.json says.
    """
    config = read_config(root, relative, [])
    for shard in config.shards:
        if not shard.path.is_file():
            if params.allow_missing_shards:
                continue
            raise LayoutError(
                "A shard of the split is missing.",
                where=shard.path,
                expected=f"{shard.num_records} records",
                found="no file",
                mend="Download it, or set allow_missing_shards to convert what is there.",
            )
        yield from _shard_refs(root, config, shard)


def _shard_refs(root: Path, config: Config, shard: Shard) -> Iterator[SceneRef]:
    spans = list(walk_records(shard.path))
    if len(spans) != shard.num_records:
        raise FormatError(
            "A shard holds another number of records than dataset_info.json says.",
            where=shard.path,
            expected=shard.num_records,
            found=len(spans),
            mend="Download the shard again.",
        )
    relative = config.relative / shard.path.relative_to(root / config.relative)
    for i, span in enumerate(spans):
        place = f"{relative.as_posix()}\0{span.offset}\0{span.length}\n"
        yield SceneRef(
            id=identifier(f"{config.name}-{config.config}-{shard.split}-{shard.index:05d}-{i:05d}"),
            split=shard.split,
            location={
                "form": "tfds",
                "path": config.relative.as_posix(),
                "shard": relative.as_posix(),
                "offset": span.offset,
                "length": span.length,
            },
            fingerprint=hashlib.sha256(place.encode()).hexdigest(),
            num_frames=config.num_frames,
            num_bytes=span.length,
        )
