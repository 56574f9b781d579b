"""Object coordinates: where a pixel is in its instance's box, an account of geometry apart from depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g

from .certificate import CheckResult, Measure, make_check
from .draw import smooth_pixels, spread
from .frames import FrameData
from .judge import Context, Residuals, quantile_measure, worst_instance_measure
from .knobs import DEPTH_TIME, INSTANCE_FAULTS, POSE_FAULTS, SWAPPED, knobs, swap_instances
from .pairs import PairData, Points, Tweak
from .played import play_out
from .raster import Float
from .sampling import centres


class ObjectCoords:
    """Object coordinates through the boxes' poses must meet depth through the camera's pose."""

    name = "object_coords"
    KNOBS = knobs(
        "shift_u",
        "shift_v",
        "focal",
        "scale",
        "ray",
        "pose_time",
        "motion_time",
        also={"pose_time": (DEPTH_TIME,), "motion_time": (DEPTH_TIME,)},
    )

    def __init__(self) -> None:
        self._residuals = Residuals()
        self._gaps: list[Float] = []
        self._rows: list[NDArray[np.int64]] = []
        self._played: dict[str, list[Float]] = {f: [] for f in {**POSE_FAULTS, **INSTANCE_FAULTS}}

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Measure one frame."""
        motion = context.frames.scene.motion
        world_from_box = motion.world_from_box
        if frame.object_coords is None or world_from_box is None or frame.sample < 0:
            return
        raster = frame.motion_rows(motion)
        boxes = world_from_box[frame.sample]
        has_box = np.isfinite(boxes).all(axis=(1, 2))
        count = int(context.setting("points_per_pair"))
        pixels = smooth_pixels(context, frame, 6 * count, number, (raster > 0) & has_box[raster])
        rows = raster[pixels[:, 0], pixels[:, 1]]
        chosen = spread(rows, np.arange(len(rows)), count)
        if not len(chosen):
            return
        uv, rows = centres(pixels[chosen]), rows[chosen]
        coords = frame.nearest("object_coords", frame.object_coords, uv).astype(np.float64)
        inverse = frame.inverse_depth[pixels[chosen, 0], pixels[chosen, 1]]
        none = np.full(len(uv), np.nan)
        points = Points(uv, inverse, rows, np.zeros(len(uv), dtype=bool), none, none)
        pair = PairData(frame, frame, motion, 0)

        def gap_of(tweak: Tweak) -> Float:
            """World gap between the two accounts in units of depth, (N, 3)."""
            by_depth = pair.world_points(points, tweak)
            by_box = g.transform_points(_boxes_at(boxes, world_from_box, frame.sample, tweak)[rows], coords)
            return (by_depth - by_box) * inverse[:, None]

        base = self._residuals.add(gap_of, self.KNOBS, number, context.setting("depth_tolerance"))
        self._gaps.append(np.linalg.norm(base, axis=1))
        self._rows.append(rows)
        for fault, move in POSE_FAULTS.items():
            self._played[fault].append(np.linalg.norm(gap_of(Tweak(move_pose=move)), axis=1))
        # A wrong instance pose moves the box with it: box' = fault(pose) pose^-1 box.
        poses = motion.world_from_instance[frame.sample]
        for fault, move in INSTANCE_FAULTS.items():
            moved = _with_instance_fault(fault, move(poses), poses, boxes)
            by_box = g.transform_points(moved[rows], coords)
            gap = (pair.world_points(points, Tweak()) - by_box) * inverse[:, None]
            self._played[fault].append(np.linalg.norm(gap, axis=1))

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not self._gaps:
            return make_check(self.name, (), "no object coordinates, or no boxes for them")
        judged = {f: self._judge(context, gaps) for f, gaps in {"": self._gaps, **self._played}.items()}
        base, hint = play_out(judged.pop(""), judged, "gap")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("depth_floor"))
        return make_check(self.name, base + biases, hint=hint)

    def _judge(self, context: Context, gaps: list[Float]) -> list[Measure]:
        gap, row = np.concatenate(gaps), np.concatenate(self._rows)
        names = context.frames.scene.motion.instance_names
        by_row = {int(r): gap[row == r] for r in np.unique(row)}
        return [
            quantile_measure(context, self.name, "gap", gap, at=0.9),
            worst_instance_measure(context, self.name, by_row, names),
        ]


def _boxes_at(boxes: Float, series: Float, sample: int, tweak: Tweak) -> Float:
    """Return world_from_box (I, 4, 4) `motion_frames` later, linearly between samples."""
    if not tweak.motion_frames:
        return boxes
    side = 1 if tweak.motion_frames > 0 else -1
    for step, amount in ((side, abs(tweak.motion_frames)), (-side, -abs(tweak.motion_frames))):
        if 0 <= sample + step < len(series):
            return boxes + amount * (series[sample + step] - boxes)
    return boxes


def _with_instance_fault(fault: str, faulty: Float, poses: Float, boxes: Float) -> Float:
    """Return the boxes as a converter with this fault would have made them, (I, 4, 4)."""
    if fault == SWAPPED:
        return swap_instances(boxes)
    return faulty @ g.invert_rigid(poses) @ boxes
