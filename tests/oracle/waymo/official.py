"""Ask the official package about a segment: `python official.py NATIVE GOLDEN.npz`, in an environment of its own.

NATIVE is what `segment.py` wrote. Nothing of datakit is imported here.

Written for frame k, lidar l (1 to 5) and return r (1 or 2):
    f{k}_pose                (4, 4) the frame's own pose.
    f{k}_l{l}_r{r}_mask      Bits of the (H, W) mask of returns, packed, with its shape in `..._shape`.
    f{k}_l{l}_r{r}_points    Every STEP-th point, float32, vehicle frame of the frame's own pose.
    f{k}_l{l}_r{r}_pixels    Camera projections of the same points, int16.
    f{k}_l{l}_r{r}_crc       CRC-32 of all points' camera projections as little-endian int32.
    f{k}_c{c}_uvok           (N, 3) u, v, ok: the same points of TOP's first return through the official
                             rolling-shutter camera c.
    f{k}_inside              Points of all lidars and both returns in each labelled box grown by MARGIN, in the order
                             of the labels. (Synthetic points lie on the boxes' very surfaces.)
    f{k}_v2_gap              Metres by which the official v2 code's points differ from the v1 code's.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from waymo_open_dataset import dataset_pb2, v2
from waymo_open_dataset.utils import box_utils, frame_utils
from waymo_open_dataset.wdl_limited.camera.ops import py_camera_model_ops

STEP = 20
#: Metres on each side.
MARGIN = 0.05


def main(native: Path, golden: Path) -> None:
    out: dict[str, Any] = {}
    (segment,) = (native / "v1").rglob("*.tfrecord")
    # TensorFlow's own reader checks the framing and both CRCs of every record.
    for k, data in enumerate(tf.data.TFRecordDataset(str(segment), compression_type="")):
        frame = dataset_pb2.Frame()
        frame.ParseFromString(data.numpy())
        out[f"f{k}_pose"] = np.reshape(frame.pose.transform, (4, 4))
        points = _lidars(frame, k, out)
        _cameras(frame, k, out)
        _boxes(frame, np.concatenate([p for pair in points.values() for p in pair]), k, out)
        out[f"f{k}_v2_gap"] = _v2_gap(native / "v2", frame.timestamp_micros, points)
    np.savez_compressed(golden, **out)


def _lidars(frame: Any, k: int, out: dict[str, Any]) -> dict[int, list[np.ndarray]]:
    images, projections, _, top_pose = frame_utils.parse_range_image_and_camera_projection(frame)
    lasers = sorted(calibration.name for calibration in frame.context.laser_calibrations)
    found: dict[int, list[np.ndarray]] = {laser: [] for laser in lasers}
    for number in (1, 2):
        points, pixels = frame_utils.convert_range_image_to_point_cloud(
            frame, images, projections, top_pose, ri_index=number - 1
        )
        for laser, some, at in zip(lasers, points, pixels, strict=True):
            name, values = f"f{k}_l{laser}_r{number}", images[laser][number - 1]
            shape = tuple(values.shape.dims)
            mask = np.reshape(values.data, shape)[..., 0] > 0
            out[f"{name}_shape"], out[f"{name}_mask"] = np.array(shape[:2]), np.packbits(mask)
            out[f"{name}_points"] = np.asarray(some)[::STEP].astype(np.float32)
            out[f"{name}_pixels"] = np.asarray(at)[::STEP].astype(np.int16)
            out[f"{name}_crc"] = zlib.crc32(np.ascontiguousarray(at, "<i4").tobytes())
            found[laser].append(np.asarray(some))
    return found


def _cameras(frame: Any, k: int, out: dict[str, Any]) -> None:
    vehicle = out[f"f{k}_l1_r1_points"].astype(np.float64)
    pose = out[f"f{k}_pose"]
    points = vehicle @ pose[:3, :3].T + pose[:3, 3]
    images = {image.name: image for image in frame.images}
    for camera in frame.context.camera_calibrations:
        image = images[camera.name]
        motion = image.velocity
        uvok = py_camera_model_ops.world_to_image(
            np.reshape(camera.extrinsic.transform, (4, 4)),
            np.array(camera.intrinsic),
            np.array([camera.width, camera.height, camera.rolling_shutter_direction], np.int32),
            np.array(
                [
                    *image.pose.transform,
                    *(getattr(motion, f"{kind}_{axis}") for kind in "vw" for axis in "xyz"),
                    image.pose_timestamp,
                    image.shutter,
                    image.camera_trigger_time,
                    image.camera_readout_done_time,
                ]
            ),
            points,
        )
        out[f"f{k}_c{camera.name}_uvok"] = np.asarray(uvok)


def _boxes(frame: Any, points: np.ndarray, k: int, out: dict[str, Any]) -> None:
    keys = ("center_x", "center_y", "center_z", "length", "width", "height", "heading")
    boxes = np.array([[getattr(label.box, key) for key in keys] for label in frame.laser_labels])
    boxes[:, 3:6] += 2 * MARGIN
    inside = box_utils.is_within_box_3d(points.astype(np.float64), boxes)
    out[f"f{k}_inside"] = np.asarray(inside).sum(axis=0)


def _v2_gap(root: Path, stamp: int, v1_points: dict[int, list[np.ndarray]]) -> float:
    """Read the v2 form of the frame by the official classes, which also checks the names of its columns."""

    def rows(tag: str) -> list[Any]:
        (path,) = root.rglob(f"{tag}/*.parquet")
        table = pd.read_parquet(path)
        if "key.frame_timestamp_micros" in table:
            table = table[table["key.frame_timestamp_micros"] == stamp]
        component = {name: kind for kind, name in v2.TAG_BY_COMPONENT.items()}[tag]
        return [component.from_dict(dict(row)) for _, row in table.iterrows()]

    for tag in ("camera_image", "camera_calibration", "lidar_box", "lidar_camera_synced_box", "stats"):
        assert rows(tag), tag
    assert rows("lidar_camera_projection")
    calibrations = {c.key.laser_name: c for c in rows("lidar_calibration")}
    (frame_pose,), (pixel_pose,) = rows("vehicle_pose"), rows("lidar_pose")
    gaps = []
    for lidar in rows("lidar"):
        laser = lidar.key.laser_name
        for number, image in enumerate((lidar.range_image_return1, lidar.range_image_return2)):
            points = v2.convert_range_image_to_point_cloud(
                image,
                calibrations[laser],
                pixel_pose.range_image_return1 if laser == 1 else None,
                frame_pose if laser == 1 else None,
            )
            gaps.append(np.abs(np.asarray(points) - v1_points[laser][number]).max(initial=0.0))
    return float(max(gaps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
