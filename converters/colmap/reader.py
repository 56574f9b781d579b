"""A COLMAP model and its images as a scene."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import has_file, identifier, read_source
from datakit import geometry as g
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError, FormatError, LayoutError
from datakit.export.colmap_model import ColmapImage, ColmapModel
from datakit.motion import MotionKind, Visibility
from datakit.scene import check_image, encode_png
from datakit.scene.records import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    SourceFile,
    ViewRecord,
)

from .card import NAME, SOURCE_CONVENTIONS, VERSION
from .dense import depth_map_path, depth_map_size, parse_depth_map
from .lens import Lens, lens_of, rectify
from .model import check_present, read_model
from .params import Params
from .pictures import Picture, decode_rgb, look_at
from .points import Seen, choose_tracks, observations, sparse_depth, world_from_cam

_NUMBER = re.compile(r"(\d+)")
#: A number in an image's name beyond this is a date or a clock and no frame number.
_LAST_FRAME = 10**7


@dataclass(frozen=True)
class Shot:
    """One image on its way into a view. `depth_map` is None where the image has no dense depth."""

    image: ColmapImage
    path: Path
    picture: Picture
    lens: Lens
    seen: Seen
    depth_map: Path | None

    @property
    def codec(self) -> str:
        """How its colour is stored: what was changed is stored without loss."""
        return "png" if self.lens.source is not None else self.picture.codec

    @property
    def num_channels(self) -> int:
        """Stored channels."""
        return 3 if self.lens.source is not None else self.picture.num_channels


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open a model; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: The model contradicts itself or its images.
        UsageError: A lens must be rectified and pycolmap is not installed.
    """
    relative, suffix = Path(ref.location["path"]), ref.location["suffix"]
    workspace, images = Path(ref.location["workspace"]), ref.location["images"]
    check_present(root, relative, suffix)
    if images is None:
        raise LayoutError(
            "The model's images are not there.",
            where=root / relative,
            expected="a folder `images` beside or above the model",
            mend="--param images=FOLDER names it, below the root",
        )
    sources: list[SourceFile] = []
    model = read_model(root, relative, suffix, sources)
    if not model.images:
        raise LayoutError("A model without images.", where=root / relative, expected="registered images")
    seen = observations(model, params)
    depth = _depth_kind(root, workspace, model, seen, params)
    shots = sorted(
        _shots(root, workspace, Path(images), model, seen, depth, params),
        key=lambda shot: natural(shot.image.name),
    )
    views = group(shots)
    record = _record(root, ref, params, model, views, depth, choose_tracks(model, seen, params))
    return SceneStream(record, _frames(root, views, record, depth, sources), sources)


def natural(name: str) -> tuple[Any, ...]:
    """Sort key in which the numbers of a name count as numbers.

    >>> sorted(["a10.png", "a9.png"], key=natural)
    ['a9.png', 'a10.png']
    """
    # Cut, because Python refuses to turn thousands of digits into a number.
    parts = _NUMBER.split(name)
    return tuple((int(part[-18:]), part) if k % 2 else (0, part) for k, part in enumerate(parts))


def _depth_kind(root: Path, workspace: Path, model: ColmapModel, seen: Sequence[Seen], params: Params) -> str:
    has_maps = any(
        has_file(root, depth_map_path(workspace, image.name, params.depth_maps)) for image in model.images
    )
    if params.depth == "dense" and not has_maps:
        raise LayoutError(
            "The model has no dense depth maps.",
            where=root / workspace / "stereo" / "depth_maps",
            expected=f"<image>.{params.depth_maps}.bin",
            mend="run `colmap patch_match_stereo`, or --param depth=points",
        )
    if params.depth != "auto":
        return params.depth
    if has_maps:
        return "dense"
    return "points" if any(item.rows.size for item in seen) else "none"


def _shots(
    root: Path,
    workspace: Path,
    images: Path,
    model: ColmapModel,
    seen: Sequence[Seen],
    depth: str,
    params: Params,
) -> Iterator[Shot]:
    lenses = {
        id: lens_of(camera, params.distortion, f"{root}: camera {id}") for id, camera in model.cameras.items()
    }
    for image, own in zip(model.images, seen, strict=True):
        path = images / image.name
        picture = look_at(root, path)
        camera = model.cameras[image.camera_id]
        lens = lenses[image.camera_id]
        if picture.size != camera.size:
            lens = _resized(lens, picture, params, str(root / path), camera.size)
        depth_map = depth_map_path(workspace, image.name, params.depth_maps)
        has_map = depth == "dense" and has_file(root, depth_map)
        if has_map and lens.source is not None:
            raise ConventionError(
                "Dense depth maps of images that are still distorted.",
                where=root / depth_map,
                expected="the model and images that `colmap image_undistorter` wrote",
                found=camera.model,
                mend="--param depth=points",
            )
        yield Shot(image, path, picture, lens, own, depth_map if has_map else None)


def _resized(lens: Lens, picture: Picture, params: Params, where: str, camera_size: tuple[int, int]) -> Lens:
    if not params.allow_resized or lens.source is not None:
        raise ConventionError(
            "An image has another size than its camera.",
            where=where,
            expected=camera_size,
            found=picture.size,
            mend="--param images=FOLDER for the images that were reconstructed, or, if these are resized ones that are "
            "not to be rectified, --param allow_resized=true",
        )
    intrinsics = g.resize_intrinsics(lens.intrinsics, lens.size, picture.size)
    return replace(lens, intrinsics=intrinsics, size=picture.size)


def group(shots: Sequence[Shot]) -> dict[str, list[Shot]]:
    """Group images into views: of one folder, size, lens and storage; K may differ from image to image.

    A folder is a camera of a rig, as COLMAP's own `single_camera_per_folder` and rig configurations have it. A view is
    named after its folder, and after its camera where a folder has several kinds.
    """
    groups: dict[tuple[Any, ...], list[Shot]] = {}
    for shot in shots:
        lens = shot.lens
        folder = Path(shot.image.name).parent.as_posix()
        key = (folder, lens.size, lens.model, lens.distortion, shot.codec, shot.num_channels)
        groups.setdefault(key, []).append(shot)
    if len(groups) == 1:
        return {"camera": list(shots)}
    folders = [key[0] for key in groups]
    out: dict[str, list[Shot]] = {}
    for (folder, *_), members in groups.items():
        name = "camera" if folder == "." else identifier(folder)
        if folders.count(folder) > 1 or name in out:
            name = f"{name}_{min(shot.image.camera_id for shot in members)}"
        # Images of one camera may be stored in two ways.
        taken = sum(other == name or other.startswith(f"{name}.") for other in out)
        out[f"{name}.{taken + 1}" if taken else name] = members
    return out


def times_of(names: Sequence[str], params: Params) -> NDArray[np.float64]:
    """Give each image of a view, in order, its time in seconds; see `Params.time_kind` and `frame_rate`."""
    order = np.arange(len(names), dtype=np.float64)
    if params.time_kind == "set":
        return order
    numbers = []
    for name in names:
        found = _NUMBER.findall(Path(name).stem)
        if not found or len(found[-1]) > 8 or int(found[-1]) > _LAST_FRAME:
            return order / params.frame_rate
        numbers.append(int(found[-1]))
    if (np.diff(numbers) <= 0).any():
        return order / params.frame_rate
    return np.array(numbers) / params.frame_rate


def _record(
    root: Path,
    ref: SceneRef,
    params: Params,
    model: ColmapModel,
    views: dict[str, list[Shot]],
    depth: str,
    tracks: NDArray[np.int64],
) -> SceneRecord:
    times = {name: times_of([s.image.name for s in shots], params) for name, shots in views.items()}
    # Where nothing moves, one sample of the motion clock is enough for all frames.
    clock = np.zeros(1) if params.static else np.unique(np.concatenate(list(times.values())))
    records = {
        name: _view(root, shots, times[name], clock, params.static, depth) for name, shots in views.items()
    }
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale=params.scale,
        time_kind=params.time_kind,
        licence=params.licence,
        citation=params.citation,
        source_conventions=SOURCE_CONVENTIONS,
        views=records,
        motion=_motion(model, views, clock, tracks, params.static),
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        metadata={
            "depth": f"{params.depth_maps} depth maps" if depth == "dense" else depth,
            "num_images_without_depth_map": sum(
                shot.depth_map is None for shots in views.values() for shot in shots
            )
            if depth == "dense"
            else 0,
            "num_points": len(model.points.ids),
            "camera_models": sorted({camera.model for camera in model.cameras.values()}),
            "num_images_encoded_again": sum(
                shot.lens.source is not None or not shot.picture.passes
                for shots in views.values()
                for shot in shots
            ),
        },
    )


def _view(
    root: Path,
    shots: Sequence[Shot],
    times: NDArray[np.float64],
    clock: NDArray[np.float64],
    static: bool,
    depth: str,
) -> ViewRecord:
    first = shots[0]
    intrinsics = np.stack([shot.lens.intrinsics for shot in shots])
    layers = {
        "rgb": LayerRecord(
            first.lens.size,
            first.codec,
            "uint8",
            num_channels=first.num_channels,
            channels=(0, 1, 2) if first.num_channels == 4 else (),
        )
    }
    if depth != "none":
        layers["z_depth"] = _depth_layer(root, shots, intrinsics)
    return ViewRecord(
        size=first.lens.size,
        times=times,
        frame_names=tuple(shot.image.name for shot in shots),
        intrinsics=intrinsics,
        world_from_cam=np.stack([world_from_cam(shot.image) for shot in shots]),
        pose_is_known=np.ones(len(shots), bool),
        motion_index=np.zeros(len(shots), np.int64) if static else np.searchsorted(clock, times),
        layers=layers,
        camera_model=first.lens.model,
        distortion=first.lens.distortion,
        is_rectified=any(shot.lens.source is not None for shot in shots),
    )


def _depth_layer(root: Path, shots: Sequence[Shot], intrinsics: NDArray[np.float64]) -> LayerRecord:
    size = shots[0].lens.size
    sizes = {shot.depth_map: depth_map_size(root, shot.depth_map) for shot in shots if shot.depth_map}
    if len(set(sizes.values())) > 1:
        raise FormatError(
            "Depth maps of one camera have several sizes.",
            where=root / next(iter(sizes)),
            expected="one size",
            found=sorted(set(sizes.values())),
            mend="run `colmap patch_match_stereo` for all images with the same settings",
        )
    own = next(iter(sizes.values()), size)
    # COLMAP scales an image to the size of its depth map, and K with it: exact in corner-origin pixels.
    scaled = g.resize_intrinsics(intrinsics, size, own) if own != size else None
    return LayerRecord(own, "array", "float32", intrinsics=scaled, depth_kind="mvs")


def _motion(
    model: ColmapModel,
    views: dict[str, list[Shot]],
    clock: NDArray[np.float64],
    tracks: NDArray[np.int64],
    static: bool,
) -> MotionRecord:
    record = MotionRecord(
        times=clock,
        instance_ids=np.zeros(1, np.uint32),
        instance_names=("scene",),
        instance_motion=np.array([MotionKind.STATIC if static else MotionKind.UNKNOWN], np.uint8),
        world_from_instance=np.tile(np.eye(4) if static else np.full((4, 4), np.nan), (len(clock), 1, 1, 1)),
    )
    if not tracks.size or not static:
        return record
    states = {}
    for name, shots in views.items():
        states[name] = np.full((len(tracks), len(shots)), Visibility.UNKNOWN, np.uint8)
        for t, shot in enumerate(shots):
            states[name][np.isin(tracks, shot.seen.rows), t] = Visibility.VISIBLE
    return replace(
        record,
        points_world=model.points.xyz[tracks][:, None],
        point_instance=np.zeros(len(tracks), np.uint32),
        point_state=states,
    )


def _frames(
    root: Path, views: dict[str, list[Shot]], record: SceneRecord, depth: str, sources: list[SourceFile]
) -> Iterator[Frame]:
    for name, shots in views.items():
        layers = record.views[name].layers
        for t, shot in enumerate(shots):
            out: dict[str, Any] = {"rgb": _colour(root, shot, sources)}
            if depth == "dense":
                out["z_depth"] = _dense_depth(root, shot, layers["z_depth"].size, sources)
            elif depth == "points":
                out["z_depth"] = sparse_depth(shot.seen, shot.lens)
            yield Frame(name, t, out)


def _colour(root: Path, shot: Shot, sources: list[SourceFile]) -> bytes:
    data = read_source(root, shot.path, sources)
    where = str(root / shot.path)
    if shot.picture.passes and shot.lens.source is None:
        _check_unchanged(check_image(shot.picture.codec, data, where), shot.picture.size, where)
        return data
    rgb = decode_rgb(data, where)
    _check_unchanged(rgb.shape[1::-1], shot.picture.size, where)
    return encode_png(rectify(rgb, shot.lens))


def _dense_depth(
    root: Path, shot: Shot, size: tuple[int, int], sources: list[SourceFile]
) -> NDArray[np.float32]:
    """Read a depth map; an image that has none has no depth at all, rather than another kind of it."""
    if shot.depth_map is None:
        return np.full(size[::-1], np.nan, np.float32)
    z_depth = parse_depth_map(read_source(root, shot.depth_map, sources), str(root / shot.depth_map))
    _check_unchanged(z_depth.shape[::-1], size, str(root / shot.depth_map))
    return z_depth


def _check_unchanged(found: tuple[int, ...], size: tuple[int, int], where: str) -> None:
    if found != size:
        raise FormatError("A file changed while it was read.", where=where, expected=size, found=found)
