"""Write worlds as CO3Dv2 stores sequences: from the format's description, not from the reader."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.motion import MotionKind
from datakit.scene import encode_png
from datakit.worlds import World

from .card import VIEW

Float = NDArray[np.float64]

_JPEG_QUALITY = 95
_CATEGORIES = ("apple", "teddybear", "hydrant", "chair")
#: PyTorch3D looks at x left, y up, z forward.
_PYTORCH3D_FROM_OPENCV = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Defects:
    """What is wrong with a written sequence, by frame number, as in the release.

    Attributes:
        no_depth: Frames with `depth: null`.
        no_viewpoint: Frames with `viewpoint: null`.
        redacted: Challenge targets: black image, no depth, no masks.
        far: Frames whose T has an entry of -2e5.
        skewed: Frames whose R has a determinant of 0.9.
        odd_codes: Frames whose depth begins with the codes of ODD_CODES.
        no_depth_mask: Frames whose depth mask file is missing.
        viewpoint_quality: viewpoint_quality_score.
        depth_scale: scale_adjustment.
    """

    no_depth: frozenset[int] = frozenset()
    no_viewpoint: frozenset[int] = frozenset()
    redacted: frozenset[int] = frozenset()
    far: frozenset[int] = frozenset()
    skewed: frozenset[int] = frozenset()
    odd_codes: frozenset[int] = frozenset()
    no_depth_mask: frozenset[int] = frozenset()
    viewpoint_quality: float | None = 1.2
    depth_scale: float = 1.0


#: 0, inf, nan, -0, the largest subnormal, 1.0, -1.0, -inf: bits of half floats.
ODD_CODES = (0x0000, 0x7C00, 0x7E00, 0x8000, 0x03FF, 0x3C00, 0xBC00, 0xFC00)
NO_DEFECTS = Defects()


@dataclass
class _Category:
    """A category while it is written."""

    folder: Path
    frames: list[dict[str, Any]] = field(default_factory=list)
    sequences: list[dict[str, Any]] = field(default_factory=list)
    lists: dict[str, dict[str, list[list[Any]]]] = field(default_factory=dict)


#: form -> category of each world (cyclic), and set list of each (cyclic).
FORMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": (_CATEGORIES[:2], ("fewview_train", "fewview_train", "fewview_dev", "manyview_dev_0")),
    "single-sequence": (_CATEGORIES, ("manyview_dev_0",)),
    "category": (_CATEGORIES[:1], ("fewview_train", "fewview_dev")),
    "challenge": (_CATEGORIES[2:3], ("fewview_test",)),
}


def write_release(worlds: Iterable[World], out: Path, form: str, defects: Defects = NO_DEFECTS) -> None:
    """Write worlds as sequences of a release.

    Args:
        worlds: One-camera worlds in which nothing moves.
        out: Folder to fill.
        form: A key of FORMS; of "challenge" every third frame is a blanked target.
        defects: What is wrong with all sequences.

    Raises:
        ConventionError: The world holds what CO3Dv2 cannot express.
    """
    names, subsets = FORMS[form]
    categories: dict[str, _Category] = {}
    out.mkdir(parents=True, exist_ok=True)
    for number, world in enumerate(worlds):
        _check_expressible(world)
        name = names[number % len(names)]
        if form == "single-sequence" and number >= len(names):
            name = f"{name}{number // len(names)}"
        category = categories.setdefault(name, _Category(out / name))
        targets = frozenset(range(1, world.num_frames, 3)) if form == "challenge" else defects.redacted
        _write_sequence(world, category, number, subsets[number % len(subsets)], defects, targets)
    for category in categories.values():
        _finish(category)
    listing = {name: sorted(c.lists) for name, c in sorted(categories.items())}
    (out / "category_to_subset_name_list.json").write_text(json.dumps(listing))


def _check_expressible(world: World) -> None:
    if list(world.views) != [VIEW]:
        raise ConventionError(
            "A sequence has one camera.", where=world.name, expected=[VIEW], found=[*world.views]
        )
    moving = [item.id for item in world.instances if item.motion != MotionKind.STATIC]
    if moving:
        raise ConventionError(
            "CO3Dv2 can only hold worlds in which nothing moves.",
            where=world.name,
            expected="MotionKind STATIC",
            found=f"instances {moving}",
            mend="--motion static",
        )


def file_number(frame_number: int) -> int:
    """Number a frame's files: from 1, with a gap where frames of the video were left out."""
    return frame_number + 1 + 3 * (frame_number >= 2)


def _write_sequence(
    world: World, category: _Category, number: int, subset: str, defects: Defects, targets: frozenset[int]
) -> None:
    name = f"{110 + number}_{13051 + 7 * number}_{23361 + 11 * number}"
    folder = category.folder / name
    for part in ("images", "masks", "depths", "depth_masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    entries = []
    for t in range(world.num_frames):
        stem, base = f"frame{file_number(t):06d}", f"{category.folder.name}/{name}"
        masked = _write_files(world, folder, stem, t, defects, t in targets)
        annotation = _annotation(world, base, stem, t, name, subset, defects, masked)
        if t in targets:
            annotation.update(depth=None, mask=None)
        category.frames.append(annotation)
        entries.append([name, t, annotation["image"]["path"]])
    listing = category.lists.setdefault(subset, {"train": [], "val": [], "test": []})
    known = [entry for entry in entries if entry[1] not in targets]
    listing["train"] += known
    # Every train frame of fewview_train is also under test; elsewhere test frames are others.
    if subset == "fewview_train":
        listing["test"] += known
    else:
        listing["test"] += [entry for entry in entries if entry[1] in targets] or entries[-1:]
    cloud = _write_cloud(world, folder / "pointcloud.ply")
    category.sequences.append(
        {
            "sequence_name": name,
            "category": category.folder.name,
            "video": None,
            "point_cloud": {
                "path": f"{category.folder.name}/{name}/pointcloud.ply",
                "quality_score": 0.9,
                "n_points": cloud,
            },
            "viewpoint_quality_score": defects.viewpoint_quality,
        }
    )


def _write_files(
    world: World, folder: Path, stem: str, t: int, defects: Defects, is_target: bool
) -> NDArray[np.uint8]:
    """Write a frame's photo, mask, depth and depth mask; return the mask."""
    frame = world.render(t)
    rgb = np.zeros_like(frame.rgb) if is_target else frame.rgb
    data = simplejpeg.encode_jpeg(rgb, quality=_JPEG_QUALITY, colorsubsampling="420")
    (folder / "images" / f"{stem}.jpg").write_bytes(data)
    soft = cv2.GaussianBlur((frame.instances > 0).astype(np.float32), (3, 3), 0.8)
    mask = np.round(254 * soft).astype(np.uint8)
    if is_target:
        return mask
    _save(Image.fromarray(mask), folder / "masks" / f"{stem}.png")
    codes = half_codes(frame.z_depth / defects.depth_scale)
    if t in defects.odd_codes:
        codes.reshape(-1)[: len(ODD_CODES)] = ODD_CODES
    if t not in defects.no_depth:
        (folder / "depths" / f"{stem}.jpg.geometric.png").write_bytes(encode_png(codes))
    if t not in defects.no_depth_mask:
        _save(Image.fromarray(soft > 0.5), folder / "depth_masks" / f"{stem}.png")
    return mask


def _save(image: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def half_codes(z_depth: Float) -> NDArray[np.uint16]:
    """Return the bits of half floats, 0 where unknown."""
    return np.nan_to_num(z_depth, nan=0.0).astype(np.float16).view(np.uint16)


def _annotation(
    world: World,
    base: str,
    stem: str,
    t: int,
    name: str,
    subset: str,
    defects: Defects,
    mask: NDArray[np.uint8],
) -> dict[str, Any]:
    view = world.views[VIEW]
    width, height = view.size
    depth = {
        "path": f"{base}/depths/{stem}.jpg.geometric.png",
        "scale_adjustment": defects.depth_scale,
        "mask_path": f"{base}/depth_masks/{stem}.png",
    }
    # Most frames state the newer format, some the older, some none.
    kind = {1: "ndc_norm_image_bounds", 2: None}.get(t % 4, "ndc_isotropic")
    known = subset.endswith("train") or t % 2 == 0
    return {
        "sequence_name": name,
        "frame_number": t,
        "frame_timestamp": float(world.times[t]),
        "image": {"path": f"{base}/images/{stem}.jpg", "size": [height, width]},
        "depth": None if t in defects.no_depth else depth,
        "mask": {"path": f"{base}/masks/{stem}.png", "mass": float(mask.sum() / 255)},
        "viewpoint": None if t in defects.no_viewpoint else _viewpoint(world, t, kind, defects),
        "meta": {"frame_type": "train_known" if known else "train_unseen", "frame_splits": []},
    }


def _viewpoint(world: World, t: int, kind: str | None, defects: Defects) -> dict[str, Any]:
    view = world.views[VIEW]
    cam_from_world = g.invert_rigid(view.world_from_cam[t])
    # Row vectors: X_cam = X_world R + T, so that R is the transpose of the usual matrix.
    rotation = (_PYTORCH3D_FROM_OPENCV @ cam_from_world[:3, :3]).T
    translation = _PYTORCH3D_FROM_OPENCV @ cam_from_world[:3, 3]
    if t in defects.far:
        translation = np.array([0.0, -2e5, 1.0])
    if t in defects.skewed:
        rotation = rotation * np.cbrt(0.9)
    focal, centre = ndc_of(view.intrinsics[t], view.size, kind)
    out = {
        "R": rotation.tolist(),
        "T": translation.tolist(),
        "focal_length": focal.tolist(),
        "principal_point": centre.tolist(),
    }
    return out if kind is None else out | {"intrinsics_format": kind}


def ndc_of(intrinsics: Float, size: tuple[int, int], kind: str | None) -> tuple[Float, Float]:
    """Return focal length and principal point in NDC: x to the left, y up, from the middle of the image."""
    width, height = size
    per_unit = np.array([min(size), min(size)] if kind == "ndc_isotropic" else [width, height]) / 2
    focal = np.array([intrinsics[0, 0], intrinsics[1, 1]]) / per_unit
    return focal, (np.array([width / 2, height / 2]) - intrinsics[:2, 2]) / per_unit


def _write_cloud(world: World, path: Path) -> int:
    """Write a point cloud in the world's frame, binary_little_endian xyz, of every 50th pixel of the first frame."""
    view, z = world.views[VIEW], world.render(0).z_depth.reshape(-1)[::50]
    uv = g.pixel_centres(view.size).reshape(-1, 2)[::50]
    points = g.transform_points(view.world_from_cam[0], g.unproject_pixels(uv, z, view.intrinsics[0]))
    points = points[np.isfinite(points).all(axis=1)].astype("<f4")
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_bytes(header.encode() + points.tobytes())
    return len(points)


def _finish(category: _Category) -> None:
    folder = category.folder
    write_jgz(folder / "frame_annotations.jgz", category.frames)
    write_jgz(folder / "sequence_annotations.jgz", category.sequences)
    for part in ("set_lists", "eval_batches"):
        (folder / part).mkdir(exist_ok=True)
    for subset, listing in category.lists.items():
        (folder / "set_lists" / f"set_lists_{subset}.json").write_text(json.dumps(listing))
        batches = [[entry] for entry in listing["test"]]
        (folder / "eval_batches" / f"eval_batches_{subset}.json").write_text(json.dumps(batches))


def write_jgz(path: Path, items: list[dict[str, Any]]) -> None:
    """Write one gzipped JSON array, without a time in its header."""
    path.write_bytes(gzip.compress(json.dumps(items).encode(), mtime=0))
