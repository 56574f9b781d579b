"""A segment into a scene: one view a camera, sparse lidar depth, boxes as rigid instances at each picture's time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError, FormatError
from datakit.motion.kinds import MotionKind
from datakit.scene import decode_image
from datakit.scene.records import (
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    ViewRecord,
)

from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION
from .lidar import Points, points_of_frame
from .motion import ObjectPath, label_times, object_paths
from .params import Params
from .segment import (
    BOTTOM_TO_TOP,
    CAMERAS,
    CYCLIST,
    GLOBAL_SHUTTER,
    LEFT_TO_RIGHT,
    OBJECT_TYPES,
    OPENCV_FROM_WAYMO,
    PEDESTRIAN,
    RIGHT_TO_LEFT,
    SIGN,
    TOP,
    TOP_TO_BOTTOM,
    VEHICLE,
    Calibration,
    CameraCalibration,
    Float,
    FrameHead,
    Image,
    Labelled,
    RangeImage,
)

#: How each type of object moves; people are not rigid, and nothing in the release says how their points move.
MOTION_OF = {
    VEHICLE: MotionKind.RIGID,
    SIGN: MotionKind.STATIC,
    PEDESTRIAN: MotionKind.UNKNOWN,
    CYCLIST: MotionKind.UNKNOWN,
}
NO_LABEL_ZONE = "no-label zone"
#: Radians between TOP's columns (2650 of them), and between its rows where they are not listed.
_COLUMN_STEP, _BEAM_STEP = 2 * np.pi / 2650, 0.0048
#: A point is shadowed by points nearer by this share of its depth, within so many times their spacing.
_SHADOW_STEP, _WINDOW = 0.1, 2.0


@dataclass(frozen=True)
class Rasters:
    """The bulk of a frame: JPEG bytes by camera, and first and second return by lidar."""

    pictures: Mapping[int, bytes]
    lasers: Mapping[int, tuple[RangeImage | None, RangeImage | None]]


@dataclass(frozen=True)
class Segment:
    """What assembling needs to know of a segment before its frames stream by.

    Attributes:
        calibration: Of the segment.
        heads: T frames.
        world_from_vehicle: (T, 4, 4) of the frames' own poses.
        origin_global: (3,) metres, the world's origin.
        start: Seconds since the epoch at which the scene's clock starts.
        label_times: (T,) s on the scene's clock.
        cameras: Numbers of the cameras that have pictures, in order.
        frames_of: Camera -> indices of the frames that have its picture.
        clock: (M,) s, the times of all pictures.
        paths: Object id -> its path in the world, and its labels.
        poses: Id of an object that is not static -> world_from_box (M, 4, 4) on the clock and (T, 4, 4) at the labels'
            times, NaN where it is not labelled around that time.
        ids: Object id -> instance id.
    """

    calibration: Calibration
    heads: Sequence[FrameHead]
    world_from_vehicle: Float
    origin_global: Float
    start: float
    label_times: Float
    cameras: tuple[int, ...]
    frames_of: Mapping[int, NDArray[np.int64]]
    clock: Float
    paths: Mapping[str, tuple[ObjectPath, list[Labelled]]]
    poses: Mapping[str, tuple[Float, Float]]
    ids: Mapping[str, int]
    label_offset: float

    def time(self, image: Image) -> float:
        """Tell a picture's time on the scene's clock, s."""
        return image.pose_time - self.start

    @property
    def no_label_zone(self) -> int:
        """Instance id of points about which nothing is labelled."""
        return len(self.ids) + 1

    @property
    def id_dtype(self) -> str:
        """Type of instance maps: segments have some hundreds of objects, and half the bytes pack in half the time."""
        return "uint16" if self.no_label_zone < 1 << 16 else "uint32"


def open_segment(calibration: Calibration, heads: Sequence[FrameHead], params: Params, where: str) -> Segment:
    """Work out a segment's clock, world and objects from its frames' heads.

    Raises:
        FormatError: No frames, no pictures, or frames that go back in time.
        ConventionError: A picture's camera has no calibration.
    """
    stamps = [head.timestamp_micros for head in heads]
    if not heads or any(b <= a for a, b in zip(stamps, stamps[1:], strict=False)):
        raise FormatError(
            "A segment's frames are not in the order of time.",
            where=where,
            expected="increasing",
            found=stamps,
        )
    wanted = tuple(CAMERAS) if params.cameras == "all" else (1, 2, 3)
    frames_of = {
        camera: np.array([t for t, head in enumerate(heads) if camera in head.images], dtype=np.int64)
        for camera in wanted
    }
    cameras = tuple(camera for camera in wanted if len(frames_of[camera]))
    missing = [CAMERAS[camera] for camera in cameras if camera not in calibration.cameras]
    if missing or not cameras:
        raise ConventionError(
            "No picture with a calibrated camera." if not cameras else "A camera has no calibration.",
            where=where,
            expected=[CAMERAS[camera] for camera in wanted],
            found=missing,
        )
    start, origin = stamps[0] * 1e-6, heads[0].global_from_vehicle[:3, 3].copy()
    world_from_vehicle = np.array([to_world(head.global_from_vehicle, origin) for head in heads])
    times, offset = label_times(heads)
    times = times - start
    paths = object_paths(heads, times, world_from_vehicle)
    clock = np.unique(
        [heads[t].images[camera].pose_time - start for camera in cameras for t in frames_of[camera]]
    )
    return Segment(
        calibration=calibration,
        heads=heads,
        world_from_vehicle=world_from_vehicle,
        origin_global=origin,
        start=start,
        label_times=times,
        cameras=cameras,
        frames_of=frames_of,
        clock=clock,
        paths=paths,
        poses={
            # All times at once: interpolating takes a millisecond, for one time or a thousand.
            ident: (both[: len(clock)], both[len(clock) :])
            for ident, both in (
                (ident, path.at(np.concatenate([clock, times])))
                for ident, (path, labels) in paths.items()
                if _kind(labels[0]) != MotionKind.STATIC
            )
        },
        ids={ident: number for number, ident in enumerate(paths, start=1)},
        label_offset=offset,
    )


def to_world(global_from_any: Float, origin_global: Float) -> Float:
    """Move a global pose to the world: the same axes, another origin."""
    out = global_from_any.copy()
    out[:3, 3] -= origin_global
    return out


def scene_record(ref: SceneRef, segment: Segment, params: Params) -> SceneRecord:
    """Describe the scene; its frames stream beside it."""
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale="metric",
        time_kind="sequence",
        licence=LICENCE,
        citation=CITATION,
        source_conventions=SOURCE_CONVENTIONS,
        views={CAMERAS[camera]: _view(segment, camera, params) for camera in segment.cameras},
        motion=_motion(segment),
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        world_up=(0.0, 0.0, 1.0),
        metadata={
            "form": ref.location["form"],
            "context": segment.calibration.name,
            "stats": segment.calibration.stats,
            "origin_global": [float(v) for v in segment.origin_global],
            "start_seconds": segment.start,
            "label_time_after_timestamp": segment.label_offset,
            "objects": [
                {
                    "instance": segment.ids[ident],
                    "id": ident,
                    "type": OBJECT_TYPES.get(labels[0].type, str(labels[0].type)),
                    "size_lwh": [float(v) for v in labels[0].box.size],
                }
                for ident, (_, labels) in segment.paths.items()
            ],
        },
    )


def _view(segment: Segment, camera: int, params: Params) -> ViewRecord:
    calibration = segment.calibration.cameras[camera]
    frames = segment.frames_of[camera]
    images = [segment.heads[t].images[camera] for t in frames]
    times = np.array([segment.time(image) for image in images])
    world_from_vehicle = np.array(
        [to_world(image.global_from_vehicle, segment.origin_global) for image in images]
    )
    axis, shutter_times = _shutter(calibration, images, segment.start)
    size = calibration.size
    k1, k2, p1, p2, k3 = calibration.distortion
    distorted = not params.rectify
    return ViewRecord(
        size=size,
        times=times,
        frame_names=tuple(str(segment.heads[t].timestamp_micros) for t in frames),
        intrinsics=np.broadcast_to(calibration.intrinsics, (len(frames), 3, 3)).copy(),
        world_from_cam=world_from_vehicle @ _vehicle_from_cam(calibration),
        pose_is_known=np.ones(len(frames), bool),
        motion_index=np.searchsorted(segment.clock, times).astype(np.int64),
        layers={
            "rgb": LayerRecord(size, "jpeg", "uint8", num_channels=3),
            "z_depth": LayerRecord(size, "array", "float32", depth_kind="lidar"),
            "instances": LayerRecord(size, "array", segment.id_dtype),
        },
        camera_model="full_opencv" if distorted else "pinhole",
        distortion=(k1, k2, p1, p2, k3, 0.0, 0.0, 0.0) if distorted else (),
        is_rectified=params.rectify,
        shutter_axis=axis,
        shutter_times=shutter_times,
    )


def _shutter(
    calibration: CameraCalibration, images: Sequence[Image], start: float
) -> tuple[str, Float | None]:
    """Give the middle of the exposure of each row or column of pictures on the scene's clock."""
    axis = _shutter_axis(calibration)
    if axis == "global":
        return axis, None
    count = calibration.size[1] if axis == "row" else calibration.size[0]
    part = (np.arange(count) + 0.5) / count
    return axis, np.array([_exposed(calibration, image, part) - start for image in images])


def _shutter_axis(calibration: CameraCalibration) -> str:
    direction = calibration.shutter_direction
    if direction in (TOP_TO_BOTTOM, BOTTOM_TO_TOP):
        return "row"
    if direction in (LEFT_TO_RIGHT, RIGHT_TO_LEFT):
        return "column"
    if direction not in (0, GLOBAL_SHUTTER):
        raise ConventionError("Unknown direction of a rolling shutter.", expected="1..5", found=direction)
    return "global"


def _exposed(calibration: CameraCalibration, image: Image, part: Float) -> Float:
    """Tell when rows or columns are exposed, s since the epoch: dataset.proto:315-372, camera_model.cc:77-106.

    Args:
        calibration: Of the camera.
        image: The picture.
        part: Where they are, from 0 at the top or left to 1.
    """
    if calibration.shutter_direction in (BOTTOM_TO_TOP, RIGHT_TO_LEFT):
        part = 1 - part
    readout = image.readout_done_time - image.trigger_time - image.shutter
    return image.trigger_time + image.shutter / 2 + readout * part


def _kind(label: Labelled) -> MotionKind:
    return MOTION_OF.get(label.type, MotionKind.UNKNOWN)


def _motion(segment: Segment) -> MotionRecord:
    poses = np.tile(np.eye(4), (len(segment.clock), len(segment.ids) + 2, 1, 1))
    names, kinds = ["background"], [MotionKind.STATIC]
    for ident, (_, labels) in segment.paths.items():
        names.append(f"{OBJECT_TYPES.get(labels[0].type, labels[0].type)} {ident}")
        kinds.append(_kind(labels[0]))
        if ident in segment.poses:
            poses[:, segment.ids[ident]] = _synced(segment, ident)
    names.append(NO_LABEL_ZONE)
    kinds.append(MotionKind.UNKNOWN)
    poses[:, segment.no_label_zone] = np.nan
    return MotionRecord(
        times=segment.clock,
        instance_ids=np.arange(len(names), dtype=np.uint32),
        instance_names=tuple(names),
        instance_motion=np.array(kinds, dtype=np.uint8),
        world_from_instance=poses,
    )


def _synced(segment: Segment, ident: str) -> Float:
    """Give an object's poses on the clock, with the release's own boxes at the pictures that they are made for.

    Such a box is where the label is, moved to when the camera that sees it best captures its centre: the time of the
    centre's own row or column, up to half a readout (22 ms) from the picture's (v2/perception/box.py of the official
    package). It keeps the label's heading (label.proto:106-133), so only its centre is taken, and the way that the
    object goes between the two times is added.
    """
    path, labels = segment.paths[ident]
    poses = segment.poses[ident][0].copy()
    for camera in segment.cameras:
        frames, places = [], []
        for t, label in zip(path.frames, labels, strict=True):
            is_seen = label.synced_camera == camera and camera in segment.heads[t].images
            if is_seen and label.synced_box is not None:
                frames.append(t)
                places.append(label.synced_box.centre)
        if not frames:
            continue
        images = [segment.heads[t].images[camera] for t in frames]
        centres = g.transform_points(segment.world_from_vehicle[frames], np.array(places))
        at = np.searchsorted(segment.clock, [segment.time(image) for image in images])
        captured = _capture_times(segment, camera, images, centres)
        then, now = path.at(np.concatenate([captured, segment.clock[at]]))[:, :3, 3].reshape(2, -1, 3)
        known = np.isfinite(now - then).all(axis=1)
        poses[at[known], :3, 3] = (centres + now - then)[known]
    return poses


def _capture_times(segment: Segment, camera: int, images: Sequence[Image], points_world: Float) -> Float:
    """Tell when the row or column of each picture that a point of (K, 3) falls on was exposed, on the scene's clock.

    The pictures' one pose is enough: it is off by a few pixels, of which the readout passes forty in a millisecond.
    """
    calibration = segment.calibration.cameras[camera]
    axis = _shutter_axis(calibration)
    if axis == "global":
        return np.array([segment.time(image) for image in images])
    vehicles = [to_world(image.global_from_vehicle, segment.origin_global) for image in images]
    cam_from_world = g.invert_rigid(np.array(vehicles) @ _vehicle_from_cam(calibration))
    points_cam = g.transform_points(cam_from_world, points_world)
    uv, _ = g.project_distorted(
        points_cam, calibration.intrinsics, "full_opencv", (*calibration.distortion, 0.0, 0.0, 0.0)
    )
    part = (uv / calibration.size)[:, 1 if axis == "row" else 0]
    # A box that hangs over the picture's border may have its centre outside, or behind the camera.
    part = np.where(np.isfinite(part), np.clip(part, 0.0, 1.0), 0.5)
    return np.array([_exposed(calibration, *pair) for pair in zip(images, part, strict=True)]) - segment.start


def _vehicle_from_cam(calibration: CameraCalibration) -> Float:
    """Give the mounting of a camera with OpenCV's axes."""
    return calibration.vehicle_from_camera @ g.invert_rigid(OPENCV_FROM_WAYMO)


def frames(segment: Segment, params: Params, rasters: Iterator[Rasters], where: str) -> Iterator[Frame]:
    """Make the frames of all views as a segment's frames stream by."""
    index = {camera: {int(t): i for i, t in enumerate(at)} for camera, at in segment.frames_of.items()}
    for t, raster in enumerate(rasters):
        place = f"{where}: frame {t}"
        head = segment.heads[t]
        points = points_of_frame(
            raster.lasers, segment.calibration.lasers, head.global_from_vehicle, place, only_seen=True
        )
        owner = _owners(points, head, params.box_margin)
        for camera in segment.cameras:
            if t not in index[camera]:
                continue
            z_depth, instances = _splat(segment, t, camera, points, owner, params)
            yield Frame(
                CAMERAS[camera],
                index[camera][t],
                {
                    "rgb": _picture(segment, camera, raster.pictures[camera], params, place),
                    "z_depth": z_depth,
                    "instances": instances,
                },
            )


def _owners(points: Points, head: FrameHead, margin: float) -> NDArray[np.int64]:
    """Tell in which of a frame's boxes each point lies: its index, -1 for none; smaller boxes go first."""
    from .kernels import find_boxes

    boxes = [label.box for label in head.objects]
    # Of equal ones the last.
    order = np.argsort([-np.prod(box.size) for box in boxes], kind="stable")[::-1].astype(np.int64)
    headings = np.array([box.heading for box in boxes])[order]
    found = find_boxes(
        points.points_vehicle,
        np.array([box.centre for box in boxes]).reshape(-1, 3)[order],
        np.stack([np.cos(headings), np.sin(headings)], axis=-1),
        np.array([box.size for box in boxes]).reshape(-1, 3)[order] / 2 + margin,
    )
    return np.append(order, -1)[found]


def _splat(
    segment: Segment, t: int, camera: int, points: Points, owner: NDArray[np.int64], params: Params
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Draw a camera's sparse z-depth and instance ids: the nearest point of each pixel."""
    from .kernels import see_points

    calibration = segment.calibration.cameras[camera]
    z_rows, ids = _owner_tables(segment, t, camera)
    seen, uv_px, z = see_points(points.points_vehicle, points.projection, owner, z_rows, camera)
    ids_seen = ids[owner[seen] + 1]
    ids_seen[points.is_unlabelled[seen] & (owner[seen] < 0)] = segment.no_label_zone
    if params.rectify:
        lens = calibration.intrinsics, np.array(calibration.distortion)
        flat = cv2.undistortPoints(uv_px[:, None], *lens, P=calibration.intrinsics)
        uv_px = flat[:, 0].astype(np.float64)
    depth, instances, rows, cols = _nearest(uv_px, z, ids_seen, calibration.size)
    if params.drop_shadowed:
        hidden = shadowed(depth, rows, cols, _point_spacing(segment.calibration, calibration))
        depth[rows[hidden], cols[hidden]], instances[rows[hidden], cols[hidden]] = np.nan, 0
    return depth, instances


def _owner_tables(segment: Segment, t: int, camera: int) -> tuple[Float, NDArray[Any]]:
    """Tell how z in a camera's picture follows from points of a frame, and their ids.

    Points of a rigid object are moved from its label's time to the picture's.

    Returns:
        For points of no box and of each of the frame's (B + 1): (B + 1, 4) row of cam_from_vehicle that gives z, and
        instance ids.
    """
    calibration, head = segment.calibration.cameras[camera], segment.heads[t]
    image = head.images[camera]
    vehicle_from_world = g.invert_rigid(to_world(image.global_from_vehicle, segment.origin_global))
    cam_from_world = g.invert_rigid(_vehicle_from_cam(calibration)) @ vehicle_from_world
    moves = np.tile(np.eye(4), (len(head.objects) + 1, 1, 1))
    at = np.searchsorted(segment.clock, segment.time(image))
    rigid = [
        k
        for k, label in enumerate(head.objects, start=1)
        if _kind(label) == MotionKind.RIGID and label.id in segment.poses
    ]
    if rigid:
        poses = [segment.poses[head.objects[k - 1].id] for k in rigid]
        moves[rigid] = np.array([on_clock[at] for on_clock, _ in poses]) @ g.invert_rigid(
            np.array([at_labels[t] for _, at_labels in poses])
        )
        moves[~np.isfinite(moves).all(axis=(1, 2))] = np.eye(4)
    z_rows = cam_from_world[2] @ moves @ segment.world_from_vehicle[t]
    ids = [0, *(segment.ids[label.id] for label in head.objects)]
    return z_rows, np.array(ids, segment.id_dtype)


def _nearest(
    uv_px: Float, z: Float, ids: NDArray[Any], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Draw points: depth and ids of the nearest in each pixel, and the rows and columns of these pixels."""
    from .kernels import draw_nearest

    depth, instances, rows, cols = draw_nearest(uv_px, z, ids, *size)
    return depth, instances, rows, cols


def _point_spacing(calibration: Calibration, camera: CameraCalibration) -> tuple[int, int]:
    """Tell how far apart TOP's points are in a picture: pixels across and down, rounded up."""
    top = calibration.lasers.get(TOP)
    beams = None if top is None else top.inclinations
    down = _BEAM_STEP if beams is None or len(beams) < 2 else float(np.median(np.abs(np.diff(beams))))
    focal = camera.intrinsics[0, 0], camera.intrinsics[1, 1]
    return int(np.ceil(focal[0] * _COLUMN_STEP)), int(np.ceil(focal[1] * down))


def shadowed(
    z_depth: NDArray[np.float32], rows: NDArray[np.int64], cols: NDArray[np.int64], spacing: tuple[int, int]
) -> NDArray[np.bool_]:
    """Find points that a camera cannot have seen: the lidar, elsewhere on the roof, looked past what is before them.

    Such points lie among those of a nearer surface, which has points on both sides of them: above and below, or
    left and right. Ground is nearer below only, and what stands beside an object's outline has it on one side only.

    Args:
        z_depth: (H, W), NaN where there is no point.
        rows: (N,) rows of all points.
        cols: (N,) their columns.
        spacing: Pixels between neighbouring points across and down.

    Returns:
        (N,) bool.
    """
    from .kernels import find_shadowed

    across, down = (max(1, round(_WINDOW * step)) for step in spacing)
    return np.asarray(find_shadowed(z_depth, rows, cols, across, down, _SHADOW_STEP))


def _picture(segment: Segment, camera: int, data: bytes, params: Params, where: str) -> bytes:
    calibration = segment.calibration.cameras[camera]
    place = f"{where}: images[{CAMERAS[camera]}]"
    if not params.rectify:
        return data
    rgb = decode_image(data, place)
    if rgb.shape[1::-1] != calibration.size:
        raise FormatError(
            "A picture has another size than its camera.",
            where=place,
            expected=calibration.size,
            found=rgb.shape[1::-1],
        )
    # OpenCV's maps count from pixel centres.
    centred = g.centre_from_corner_intrinsics(calibration.intrinsics)
    flat: NDArray[Any] = cv2.undistort(rgb, centred, np.array(calibration.distortion))
    _, encoded = cv2.imencode(".jpg", flat[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, params.jpeg_quality])
    return bytes(encoded)
