"""What packing needs to know of a scene before it reads frames: hashes, certificate, views."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datakit.covisibility import SUFFIX, read_covisibility
from datakit.errors import FormatError, QualityError
from datakit.scene import open_scene

from .clips import Origin
from .layout import LEVELS, sha256_json

_CERTIFICATE_SUFFIX = ".certificate.json"


@dataclass(frozen=True)
class SceneFacts:
    """A scene file on the packing list.

    Attributes:
        path: The file.
        dataset: Converter's name.
        id: Scene id.
        origin: Its hashes and level.
        views: (name, number of frames) of the views with colour, in the scene's order.
        views_left_out: Names of the views without colour.
        summary: What `scenes.jsonl` says: hashes, licence, scale, converter, sources, certificate.
        covisibility: The covisibility file of a set of photos, where there is one.
    """

    path: Path
    dataset: str
    id: str
    origin: Origin
    views: tuple[tuple[str, int], ...]
    views_left_out: tuple[str, ...]
    summary: dict[str, Any]
    covisibility: Path | None = None


def look_at_scene(path: Path, certificates: Path | None, covisibility: Path | None = None) -> SceneFacts:
    """Hash a scene file, find its certificate, and list its views.

    Args:
        path: Scene file.
        certificates: Folder of `<scene>.certificate.json`; None for beside the scene.
        covisibility: Folder of `<scene>.covisibility.safetensors`; None for beside the scene.

    Returns:
        The facts; level "none" where there is no certificate.

    Raises:
        FormatError: The scene, its certificate or its covisibility cannot be read.
        QualityError: The certificate belongs to another scene file.
        ConventionError: Covisibility was measured on another scene file.
    """
    digest = file_sha256(path)
    level, certificate_sha256, certificate = _certificate(path, certificates, digest)
    with open_scene(path) as scene:
        sources = scene.provenance.get("sources", [])
        origin = Origin(digest, level, certificate_sha256, sha256_json(sources))
        names = {name: view.num_frames for name, view in scene.views.items() if "rgb" in view.layers}
        summary = {
            "dataset": scene.dataset,
            "id": scene.id,
            "scene_sha256": digest,
            "split": scene.split,
            "scale": scene.scale,
            "time_kind": scene.time_kind,
            "licence": scene.licence,
            "citation": scene.citation,
            "certificate": {"level": level, "sha256": certificate_sha256, "content": certificate},
            "provenance": dict(scene.provenance) | {"sources": sources},
            "sources_sha256": origin.sources_sha256,
        }
        overlaps = None
        if scene.time_kind == "set":
            overlaps = _covisibility(path, covisibility, digest)
            summary["covisibility_sha256"] = "none" if overlaps is None else file_sha256(overlaps)
        return SceneFacts(
            path,
            scene.dataset,
            scene.id,
            origin,
            tuple(names.items()),
            tuple(name for name in scene.views if name not in names),
            summary,
            overlaps,
        )


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _certificate(path: Path, folder: Path | None, scene_sha256: str) -> tuple[str, str, Any]:
    place = (path.parent if folder is None else folder) / (path.stem + _CERTIFICATE_SUFFIX)
    if not place.is_file():
        return "none", "none", None
    data = place.read_bytes()
    try:
        certificate = json.loads(data)
        level, measured = certificate["verdict"], certificate["scene_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            "Certificate cannot be read",
            where=place,
            expected="JSON with verdict and scene_sha256",
            found=error,
            mend="run datakit certify again",
        ) from error
    if level not in LEVELS[:-1]:
        raise FormatError("Unknown verdict", where=place, expected=LEVELS[:-1], found=level)
    if measured != scene_sha256:
        raise QualityError(
            "Certificate was made for another scene file",
            where=place,
            expected=f"{scene_sha256} ({path})",
            found=measured,
            mend="run datakit certify again",
        )
    return level, hashlib.sha256(data).hexdigest(), certificate


def _covisibility(path: Path, folder: Path | None, scene_sha256: str) -> Path | None:
    place = (path.parent if folder is None else folder) / (path.stem + SUFFIX)
    if not place.is_file():
        return None
    read_covisibility(place, scene_sha256)  # a bad one is said before the first clip is made
    return place
