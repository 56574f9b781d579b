"""Follow a sample back to the bytes that it was made from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datakit.errors import ShardError

from .codecs import decode_clip_header
from .layout import KINDS, SCENES, sha256_json
from .reader import ShardSet, check_file, open_set


def trace(root: str | Path, key: str, *, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Give the chain of a sample: set, shard, scene, certificate, source files.

    Args:
        root: Folder or URL of the set.
        key: Key of the sample.
        storage_options: For the fsspec file system.

    Returns:
        JSON-able: "key", "manifest_sha256", "shard" {name, sha256}, "members" {kind: {offset, length, xxh3}},
        "clip" {view, frames, frame_names} with "window_by" where the photos were chosen for it, "scene" {dataset, id,
        sha256, licence, scale, citation}, "certificate" {level, sha256, content}, "conversion" {converter,
        converter_version, params, fingerprint}, "sources" [{path, size, sha256, offset}].

    Raises:
        UsageError: No clip has this key.
        ShardError: A link is missing or two links of the chain disagree.
    """
    shard_set = open_set(root, storage_options=storage_options)
    i = shard_set.find(key)
    header = decode_clip_header(shard_set.read_member(i, "clip.json"))
    scene = _scene_line(shard_set, header)
    members = {kind: shard_set.member(i, kind) for kind in KINDS if shard_set.has_member(i, kind)}
    shard = shard_set.manifest["shards"][int(shard_set.columns["shard"][i])]
    provenance = scene["provenance"]
    return {
        "key": key,
        "manifest_sha256": shard_set.manifest_sha256,
        "shard": {"name": shard["name"], "sha256": shard["sha256"]},
        "members": {kind: asdict(at) | {"xxh3": f"{at.xxh3:016x}"} for kind, at in members.items()},
        "clip": {
            "view": header["view"],
            "frames": header["frame_indices"],
            "frame_names": header["provenance"]["frame_names"],
        }
        | {name: header[name] for name in ("window_by",) if name in header},
        "scene": {"sha256": scene["scene_sha256"]}
        | {name: scene[name] for name in ("dataset", "id", "split", "licence", "scale", "citation")},
        "certificate": scene["certificate"],
        "conversion": {name: value for name, value in provenance.items() if name != "sources"},
        "sources": provenance["sources"],
    }


def _scene_line(shard_set: ShardSet, header: dict[str, Any]) -> dict[str, Any]:
    where = shard_set.reader.place(SCENES)
    data = shard_set.reader.read(SCENES)
    check_file(where, data, shard_set.manifest["scenes"])
    for line in data.splitlines():
        scene: dict[str, Any] = json.loads(line)
        if f"{scene['dataset']}/{scene['id']}" == header["scene"]:
            break
    else:
        raise ShardError("Scene is not listed", where=where, expected=header["scene"], found="no line of it")
    links = (
        ("scene_sha256", scene["scene_sha256"], header["scene_sha256"]),
        ("certificate_sha256", scene["certificate"]["sha256"], header["certificate_sha256"]),
        (
            "sources_sha256",
            sha256_json(scene["provenance"]["sources"]),
            header["provenance"]["sources_sha256"],
        ),
    )
    for name, found, expected in links:
        if found != expected:
            raise ShardError("The chain is broken", where=f"{where}, {name}", expected=expected, found=found)
    return scene
