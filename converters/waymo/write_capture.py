"""What Waymo's vehicle would have recorded: pictures, range images and labels of a driving world.

Written from the format's description, in its own frames; nothing of the reader is used. Times are seconds of the
world's clock, where frame t's labels and pose are at t / fps and its sweep starts half a period earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.worlds import DrivingWorld, World, WorldView
from datakit.worlds.cast import Hits, rotate

Float = NDArray[np.float64]

CAMERAS = {"front": 1, "front_left": 2, "front_right": 3, "side_left": 4, "side_right": 5}
TYPES = {"vehicle": 1, "pedestrian": 2, "sign": 3, "cyclist": 4}
#: Seconds from the start of the sweep to the middle of each camera's readout.
_CAPTURE = {1: 0.0524, 2: 0.0424, 3: 0.0624, 4: 0.0224, 5: 0.0824}
_READOUT, _SHUTTER = 0.044, 0.0026
_HALF_SWEEP = 0.05
#: Readout directions: left to right, but right to left on one camera, so that both are there.
_DIRECTION = {1: 2, 2: 2, 3: 2, 4: 2, 5: 4}
#: Lens of each camera: k1, k2, p1, p2, k3.
_LENS = {
    1: (0.040, -0.330, 0.0010, -0.0016, 0.0),
    2: (0.033, -0.330, 0.0032, 0.0013, 0.0),
    3: (0.033, -0.296, 0.0017, -0.0016, 0.0),
    4: (0.040, -0.327, 0.0010, -0.0002, 0.0),
    5: (0.038, -0.346, 0.0003, -0.0004, 0.0),
}
#: Outside these radial factors a lens model folds back (camera_model.cc:49-50).
_RADIAL = (0.8, 1.2)
#: A map frame tens of kilometres away, slightly tilted: global_from_world.
_GLOBAL_FROM_WORLD = g.rigid_from(
    g.rotation_from_axis_angle(np.array([0.004, -0.003, 0.7])), np.array([-25211.25, 42391.5, 31.75])
)
_OPENCV_FROM_WAYMO = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
_MAX_RANGE = 75.0
_MAX_LABEL_DISTANCE = 55.0
_RANGE_SECOND = 0.03


@dataclass(frozen=True)
class LidarRig:
    """One lidar: vehicle_from_lidar, (H,) row inclinations from the highest down, and the columns."""

    vehicle_from_lidar: Float
    inclinations: Float
    num_columns: int
    is_listed: bool


@dataclass(frozen=True)
class Capture:
    """One frame as recorded.

    Attributes:
        timestamp_micros: Start of the sweep.
        global_from_vehicle: (4, 4) at the labels' time.
        pictures: Camera number -> fields of a CameraImage by name.
        returns: Laser number -> two (values, projection, pose or None).
        labels: Fields of each label by name.
    """

    timestamp_micros: int
    global_from_vehicle: Float
    pictures: dict[int, dict[str, Any]]
    returns: dict[int, list[tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32] | None]]]
    labels: list[dict[str, Any]]


class Recorder:
    """Records a driving world frame by frame.

    Attributes:
        world: What is driven through.
        lidars: Laser number -> rig.
        start_micros: Timestamp of the first frame.
    """

    start_micros = 1_600_000_000_000_000

    def __init__(self, world: World) -> None:
        if not isinstance(world, DrivingWorld) or set(world.views) != set(CAMERAS):
            raise ConventionError(
                "Waymo's form needs a world with a vehicle and five cameras.",
                where=world.name,
                expected="datakit.worlds.driving_world",
                found=type(world).__name__,
            )
        self.world = world
        self.lidars = _lidars(world.views["front"].size[0])

    def calibration(self, camera: int) -> dict[str, Any]:
        """Give the fields of a CameraCalibration."""
        view = self._view(camera)
        matrix = view.intrinsics[0]
        vehicle_from_cam = (
            g.invert_rigid(self.world.ego.world_from_instance([0.0])[0]) @ view.world_from_cam[0]
        )
        return {
            "intrinsic": [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *_LENS[camera]],
            "extrinsic": vehicle_from_cam @ _OPENCV_FROM_WAYMO,
            "size": view.size,
            "direction": _DIRECTION[camera],
        }

    def frames(self) -> Iterator[Capture]:
        """Record frame by frame."""
        for t in range(self.world.num_frames):
            yield self._frame(t)

    def _frame(self, t: int) -> Capture:
        at = t / self.world.fps
        clock = self.start_micros + round(t / self.world.fps * 1e6)
        sweeps = {laser: self._sweep(laser, at) for laser in self.lidars}
        return Capture(
            timestamp_micros=clock,
            global_from_vehicle=_GLOBAL_FROM_WORLD @ self.world.ego.world_from_instance([at])[0],
            pictures={camera: self._picture(camera, at, clock) for camera in CAMERAS.values()},
            returns={laser: returns for laser, (returns, _) in sweeps.items()},
            labels=self._labels(t, {laser: points for laser, (_, points) in sweeps.items()}),
        )

    def _view(self, camera: int) -> WorldView:
        name = next(name for name, number in CAMERAS.items() if number == camera)
        return self.world.views[name]

    # --- pictures -------------------------------------------------------------------------------------------

    def _picture(self, camera: int, at: float, clock: int) -> dict[str, Any]:
        middle = at - _HALF_SWEEP + _CAPTURE[camera]
        epoch = clock * 1e-6 - (at - _HALF_SWEEP)
        trigger = middle - (_READOUT + _SHUTTER) / 2
        velocity = self._velocity(middle)
        return {
            "image": self._expose(camera, middle),
            "pose": _GLOBAL_FROM_WORLD @ self.world.ego.world_from_instance([middle])[0],
            "velocity": velocity,
            "pose_timestamp": epoch + middle,
            "shutter": _SHUTTER,
            "camera_trigger_time": epoch + trigger,
            "camera_readout_done_time": epoch + trigger + _READOUT + _SHUTTER,
        }

    def _velocity(self, at: float) -> tuple[Float, Float]:
        """Give linear velocity in the global frame, and angular velocity in the vehicle's own (camera_model.cc:298)."""
        step = 1e-4
        before, after = self.world.ego.world_from_instance([at - step, at + step])
        linear = (after[:3, 3] - before[:3, 3]) / (2 * step)
        turn = before[:3, :3].T @ after[:3, :3]
        angular = cv2.Rodrigues(turn)[0][:, 0] / (2 * step)
        return _GLOBAL_FROM_WORLD[:3, :3] @ linear, angular

    def _column_time(self, camera: int, u: Float, middle: float) -> Float:
        part = u / self._view(camera).size[0] - 0.5
        return middle + (part if _DIRECTION[camera] == 2 else -part) * _READOUT

    def _expose(self, camera: int, middle: float) -> bytes:
        """Take a picture column by column, through the lens."""
        view = self._view(camera)
        uv = g.pixel_centres(view.size).reshape(-1, 2)
        matrix = view.intrinsics[0]
        rays = g.unproject_distorted(uv, np.ones(len(uv)), matrix, "full_opencv", _colmap(_LENS[camera]))
        times = self._column_time(camera, uv[:, 0], middle)
        poses = view.path.world_from_cam(times)
        # Nothing on the road moves by a pixel while one row is read out; bodies stand as at the middle.
        hits = self.world.cast(poses[:, :3, 3], rotate(poses, rays), middle)
        right, down = (rotate(poses, np.tile(axis, (len(uv), 1))) for axis in np.eye(3)[:2])
        scale = np.where(np.isfinite(hits.scale), hits.scale, 0.0)[:, None]
        colours = self.world.colours(hits, right * scale / matrix[0, 0], down * scale / matrix[1, 1], middle)
        rgb = np.round(255 * colours).astype(np.uint8).reshape(*view.size[::-1], 3)
        _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        return bytes(encoded)

    # --- lidars ---------------------------------------------------------------------------------------------

    def _sweep(
        self, laser: int, at: float
    ) -> tuple[list[tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32] | None]], Float]:
        """Record both returns of one lidar; also give the points (N, 3) of both in the world.

        Every pulse of TOP leaves from where the vehicle is then; the others give points in the frame's own pose.
        Bodies stand as at the labels' time, since people draw labels around the points that they see.
        """
        rig = self.lidars[laser]
        rows, columns = len(rig.inclinations), rig.num_columns
        yaw = np.arctan2(rig.vehicle_from_lidar[1, 0], rig.vehicle_from_lidar[0, 0])
        azimuth = ((columns - np.arange(columns) - 0.5) / columns * 2 - 1) * np.pi - yaw
        inc, azi = np.meshgrid(rig.inclinations, azimuth, indexing="ij")
        lidar_rays = np.stack([np.cos(azi) * np.cos(inc), np.sin(azi) * np.cos(inc), np.sin(inc)], -1)
        times = np.full(columns, at)
        if laser == 1:
            times = at - _HALF_SWEEP + (np.arange(columns) + 0.5) / columns * 2 * _HALF_SWEEP
        vehicle = self.world.ego.world_from_instance(times)
        # What is stored of TOP's poses is float32; the pulse leaves from there.
        stored = _pose_numbers(_GLOBAL_FROM_WORLD @ vehicle) if laser == 1 else None
        world_from_lidar = np.tile(vehicle @ rig.vehicle_from_lidar, (rows, 1, 1))
        directions = rotate(world_from_lidar, lidar_rays.reshape(-1, 3))
        origins = world_from_lidar[:, :3, 3]
        first = self.world.cast(origins, directions, at)
        # A part of the beam goes on past the edge of what it met.
        onward = origins + (np.where(np.isfinite(first.scale), first.scale, 0) + 0.3)[:, None] * directions
        second = self.world.cast(onward, directions, at)
        chosen = np.random.default_rng([self.world.seed, laser, round(at * 1e3)]).random(len(directions))
        kept = (chosen < _RANGE_SECOND) & (first.instance > 0) & (second.instance >= 0)
        ranges = [
            np.where(np.isfinite(first.scale) & (first.scale < _MAX_RANGE), first.scale, -1.0),
            np.where(
                kept & (second.scale + first.scale + 0.3 < _MAX_RANGE), first.scale + 0.3 + second.scale, -1.0
            ),
        ]
        if laser == 1:
            # "Not necessarily 0" (range_image_utils.py:457): some missing pixels are.
            ranges[1][::97] = np.where(ranges[1][::97] < 0, 0.0, ranges[1][::97])
        out, places = [], []
        for number, metres in enumerate(ranges):
            points = origins + metres[:, None] * directions
            places.append(points[metres > 0])
            values = np.zeros((rows, columns, 4), np.float32)
            values[..., 0] = metres.reshape(rows, columns)
            values[..., 1] = np.where(metres > 0, 0.2, -1.0).reshape(rows, columns)
            values[..., 3] = np.where(metres > 0, -1.0, 0.0).reshape(rows, columns)
            projection = self._projections(points, metres > 0, at).reshape(rows, columns, 6)
            pose = np.tile(stored, (rows, 1, 1)) if stored is not None and number == 0 else None
            out.append((values, projection, pose))
        return out, np.concatenate(places)

    def _projections(self, points: Float, known: NDArray[np.bool_], at: float) -> NDArray[np.int32]:
        """Give the first two cameras that see each point, in the order of their numbers, and the pixels there."""
        out = np.zeros((len(points), 6), np.int32)
        filled = np.zeros(len(points), np.int64)
        rows = np.flatnonzero(known)
        for camera in CAMERAS.values():
            uv, seen = self._project(camera, points[rows], at - _HALF_SWEEP + _CAPTURE[camera])
            mine = rows[seen & (filled[rows] < 2)]
            pixels = uv[seen & (filled[rows] < 2)]
            slot = 3 * filled[mine]
            out[mine, slot] = camera
            out[mine, slot + 1], out[mine, slot + 2] = np.floor(pixels).astype(np.int32).T
            filled[mine] += 1
        return out

    def _project(self, camera: int, points: Float, middle: float) -> tuple[Float, NDArray[np.bool_]]:
        """Find the column whose own time sees a point in that column, by fixed point."""
        view = self._view(camera)
        times, seen = np.full(len(points), middle), np.ones(len(points), bool)
        uv = np.zeros((len(points), 2))
        for _ in range(8):
            cam_from_world = g.invert_rigid(view.path.world_from_cam(times))
            points_cam = rotate(cam_from_world, points) + cam_from_world[:, :3, 3]
            with np.errstate(divide="ignore", invalid="ignore"):
                x, y = points_cam[:, 0] / points_cam[:, 2], points_cam[:, 1] / points_cam[:, 2]
            uv, radial = _distort(x, y, view.intrinsics[0], _LENS[camera])
            seen = (points_cam[:, 2] > 0) & (radial > _RADIAL[0]) & (radial < _RADIAL[1])
            u = np.clip(np.nan_to_num(uv[:, 0]), 0, view.size[0])
            times = np.where(seen, self._column_time(camera, u, middle), middle)
        with np.errstate(invalid="ignore"):
            seen &= ((uv >= 0) & (uv < view.size)).all(axis=1)
        return uv, seen

    # --- labels ---------------------------------------------------------------------------------------------

    def _labels(self, t: int, points: dict[int, Float]) -> list[dict[str, Any]]:
        at = t / self.world.fps
        vehicle_from_world = g.invert_rigid(self.world.ego.world_from_instance([at])[0])
        labels = []
        for body in self.world.instances:
            pose = body.path.world_from_instance([at])[0]
            local = vehicle_from_world @ pose
            if np.linalg.norm(local[:3, 3]) > _MAX_LABEL_DISTANCE:
                continue
            inside = {laser: _count_inside(body, pose, seen) for laser, seen in points.items()}
            labels.append(
                {
                    "num_points": sum(inside.values()),
                    "num_top_points": inside[1],
                    "id": f"{body.name[:22]:-<22}",
                    "type": TYPES[body.name.split("-")[0]],
                    "centre": local[:3, 3],
                    "size": body.box_hi - body.box_lo,
                    "heading": float(np.arctan2(local[1, 0], local[0, 0])),
                    "speed": _GLOBAL_FROM_WORLD[:3, :3] @ _speed(body, at),
                    **self._synced(body, at, vehicle_from_world, local),
                }
            )
        return labels

    def _synced(self, body: Any, at: float, vehicle_from_world: Float, local: Float) -> dict[str, Any]:
        """Move a box to when the camera that looks towards it captures its centre; one object goes without.

        That is the time of the centre's own column, not of the picture (v2/perception/box.py of the official package).
        """
        if body.id % 3 == 0:
            return {"camera": 0, "synced_centre": None}
        azimuth = np.arctan2(local[1, 3], local[0, 3])
        camera = min(
            CAMERAS.values(),
            key=lambda number: abs(np.angle(np.exp(1j * (azimuth - _yaw(self._view(number), self.world))))),
        )
        middle = at - _HALF_SWEEP + _CAPTURE[camera]
        when = np.array([middle])
        for _ in range(5):
            centre = body.path.world_from_instance(when)[:, :3, 3]
            uv, _ = self._project(camera, centre, middle)
            when = self._column_time(camera, np.clip(uv[:, 0], 0, self._view(camera).size[0]), middle)
        return {"camera": camera, "synced_centre": g.transform_points(vehicle_from_world, centre[0])}


def _count_inside(body: Any, pose: Float, points: Float) -> int:
    local = g.transform_points(g.invert_rigid(pose), points)
    # Points lie on the surface, and rounding puts every other one outside it.
    return int(((local >= body.box_lo - 1e-3) & (local <= body.box_hi + 1e-3)).all(axis=1).sum())


def _yaw(view: WorldView, world: DrivingWorld) -> float:
    ahead = world.ego.world_from_instance([0.0])[0, :3, :3].T @ view.world_from_cam[0, :3, 2]
    return float(np.arctan2(ahead[1], ahead[0]))


def _speed(body: Any, at: float) -> Float:
    step = 1e-3
    before, after = body.path.world_from_instance([at - step, at + step])[:, :3, 3]
    return np.asarray((after - before) / (2 * step))


def _colmap(lens: tuple[float, ...]) -> tuple[float, ...]:
    return (*lens, 0.0, 0.0, 0.0)


def _distort(x: Float, y: Float, matrix: Float, lens: tuple[float, ...]) -> tuple[Float, Float]:
    """Apply OpenCV's lens to normalised coordinates; returns uv (N, 2) px and the radial factor (N,)."""
    k1, k2, p1, p2, k3 = lens
    with np.errstate(over="ignore", invalid="ignore"):
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        du = 2 * p1 * x * y + p2 * (square + 2 * x * x)
        dv = p1 * (square + 2 * y * y) + 2 * p2 * x * y
        u = matrix[0, 0] * (x * radial + du) + matrix[0, 2]
        v = matrix[1, 1] * (y * radial + dv) + matrix[1, 2]
    return np.stack([u, v], axis=-1), radial


def _pose_numbers(global_from_vehicle: Float) -> NDArray[np.float32]:
    """Give roll, pitch, yaw, x, y, z of poses (K, 4, 4); R = Rz(yaw) Ry(pitch) Rx(roll)."""
    rotation = global_from_vehicle[:, :3, :3]
    roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    pitch = -np.arcsin(rotation[:, 2, 0])
    yaw = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    angles = np.stack([roll, pitch, yaw], axis=1)
    return np.concatenate([angles, global_from_vehicle[:, :3, 3]], axis=1).astype(np.float32)


def _lidars(width: int) -> dict[int, LidarRig]:
    """Place five lidars; they have the release's columns for the pictures' width, but no fewer than tests need."""
    turn = g.rotation_from_axis_angle
    # TOP's beams are denser around the horizon, as on the release's 64.
    part = np.linspace(-1, 1, 64)
    listed = np.radians(-7.6 + 9.9 * (0.6 * part + 0.4 * part**3))[::-1]
    rows, short_columns = (max(least, round(full * width / 1920)) for least, full in ((60, 200), (120, 600)))
    uniform = (-np.pi / 2 + (np.arange(rows) + 0.5) / rows * (np.pi / 6 + np.pi / 2))[::-1]
    places = {
        2: (turn(np.array([0.0, 0.01, 0.02])), (4.07, 0.0, 0.69)),
        3: (turn(np.array([0.0, 0.0, np.pi / 2 - 0.05])), (3.25, 1.03, 0.98)),
        4: (turn(np.array([0.0, 0.0, -np.pi / 2 + 0.04])), (3.25, -1.03, 0.98)),
        5: (turn(np.array([0.0, 0.0, np.pi])), (-1.15, 0.0, 0.46)),
    }
    columns = max(256, round(2650 * width / 1920))
    top = g.rigid_from(turn(np.array([0.003, -0.002, -2.6])), np.array([1.43, 0.0, 2.18]))
    rigs = {1: LidarRig(top, listed, columns, True)}
    for laser, (rotation, place) in places.items():
        rigs[laser] = LidarRig(g.rigid_from(rotation, np.array(place)), uniform, short_columns, False)
    return rigs


__all__ = ["CAMERAS", "Capture", "Hits", "Recorder"]
