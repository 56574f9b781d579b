"""Single frames: is depth there and sane, and do stored normals stand on the surface that depth shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .certificate import CheckResult, Measure, make_check
from .draw import smooth_pixels
from .frames import FrameData
from .judge import Context, Residuals, quantile_measure, share_measure
from .knobs import CAMERA_NORMALS, DEPTH_TIME, POSE_FAULTS, knobs
from .pairs import PairData, Tweak
from .played import play_out
from .raster import Float, neighbourhood
from .sampling import centres


class DepthValid:
    """Depth must be known for some share of the pixels, and where known be finite and positive."""

    name = "depth_valid"

    def __init__(self) -> None:
        self._pixels = self._known = self._bad = self._empty = self._frames = 0
        self._empty_names: list[str] = []

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Count one frame's pixels."""
        if "z_depth" not in frame.view.layers:
            return
        z = frame.z_depth
        told = ~np.isnan(z)
        good = told & np.isfinite(z) & (z > 0)
        self._frames += 1
        self._pixels += z.size
        self._known += int(good.sum())
        self._bad += int((told & ~good).sum())
        if not good.any():
            self._empty += 1
            self._empty_names.append(f"{frame.index} of {frame.view.name}")

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not self._frames:
            return make_check(self.name, (), "no depth layer")
        return make_check(
            self.name,
            [
                share_measure(context, self.name, "known_share", self._known, self._pixels, needed=1),
                share_measure(context, self.name, "bad_share", self._bad, self._pixels, needed=1),
                self._emptiness(context),
            ],
        )

    def _emptiness(self, context: Context) -> Measure:
        measure = share_measure(context, self.name, "empty_frames", self._empty, self._frames, needed=1)
        if not measure.reason:
            return measure
        names = ", ".join(self._empty_names[:3]) + (" ..." if self._empty > 3 else "")
        told = f"{self._empty} of {self._frames} frames looked at know no depth at all: {names}"
        return replace(measure, reason=told)


class Normals:
    """Stored normals against the slope of depth: sees K, rays and camera axes without any motion."""

    name = "normals"
    KNOBS = knobs("shift_u", "shift_v", "focal", "ray", "pose_time", also={"pose_time": (DEPTH_TIME,)})

    def __init__(self) -> None:
        self._residuals = Residuals()
        self._angles: list[Float] = []
        self._played: dict[str, list[Float]] = {f: [] for f in (*POSE_FAULTS, CAMERA_NORMALS)}

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Measure one frame."""
        if frame.normals is None or frame.is_sparse:
            return
        count = 4 * int(context.setting("points_per_pair"))
        pixels = smooth_pixels(context, frame, count, 2000 + number, bend="max_normal_bend")
        if not len(pixels):
            return
        stored = frame.nearest("normals_world", frame.normals, centres(pixels)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        normal_of = depth_normals(frame, pixels, context)
        # Where the two differ by more, the source shades or the surface ends; that says nothing of biases.
        self._residuals.add(
            lambda tweak: normal_of(tweak) - stored, self.KNOBS, number, context.setting("normal_tolerance")
        )
        self._angles.append(_angle_deg(normal_of(Tweak()), stored))
        for fault, move in POSE_FAULTS.items():
            self._played[fault].append(_angle_deg(normal_of(Tweak(move_pose=move)), stored))

        in_camera = stored @ frame.world_from_cam[:3, :3]
        self._played[CAMERA_NORMALS].append(_angle_deg(normal_of(Tweak()), in_camera))

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not self._angles:
            return make_check(self.name, (), "no normals are stored")
        judged = {
            fault: [quantile_measure(context, self.name, "angle", np.concatenate(angles))]
            for fault, angles in {"": self._angles, **self._played}.items()
        }
        base, hint = play_out(judged.pop(""), judged, "angle")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("normal_floor"))
        return make_check(self.name, base + biases, hint=hint)


def depth_normals(frame: FrameData, pixels: np.ndarray, context: Context) -> Callable[[Tweak], Float]:
    """Prepare normals from the slope of 1/z.

    On the plane n . X = d, 1/z = n . K^-1 (u, v, 1) / d is affine in the pixel, so n is K^T (a, b, c) up to
    scale for 1/z = a u + b v + c: exact on planes, whatever their slant. A distorted view's K^-1 is replaced by
    its local affine map, found from the rays of the neighbouring pixels.

    Returns:
        A function of a tweak that gives (N, 3) unit normals in the world frame, facing the camera.
    """
    inverse = neighbourhood(frame.inverse_depth, pixels[:, 0], pixels[:, 1])
    uv = centres(pixels)
    pair = PairData(frame, frame, context.frames.scene.motion, 0)
    steps = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    around = np.stack([inverse[:, 1, 0], inverse[:, 1, 2], inverse[:, 0, 1], inverse[:, 2, 1]], axis=1)
    centre = inverse[:, 1, 1]

    def normal_of(tweak: Tweak) -> Float:
        lifted = [pair.lift(frame, uv + steps[k], around[:, k], tweak) for k in range(4)]
        middle = pair.lift(frame, uv, centre, tweak)
        ray = middle / middle[:, 2:]
        w = [1.0 / p[:, 2] for p in lifted]
        rays = [p[:, :2] / p[:, 2:] for p in lifted]
        # Slope of 1/z against the normalised ray (x, y), from the two central differences.
        du, dv = (rays[1] - rays[0]) / 2, (rays[3] - rays[2]) / 2
        wu, wv = (w[1] - w[0]) / 2, (w[3] - w[2]) / 2
        det = du[:, 0] * dv[:, 1] - du[:, 1] * dv[:, 0]
        a = (wu * dv[:, 1] - wv * du[:, 1]) / det
        b = (wv * du[:, 0] - wu * dv[:, 0]) / det
        c = 1.0 / middle[:, 2] - a * ray[:, 0] - b * ray[:, 1]
        # n . X = 1 > 0 points away from the camera; turn it round.
        normal = -np.stack([a, b, c], axis=1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return normal @ pair.pose(frame, tweak)[:3, :3].T

    return normal_of


def _angle_deg(first: Float, second: Float) -> Float:
    # From the chord: accurate for small angles, where arccos is not.
    chord = np.linalg.norm(first - second, axis=1)
    return np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
