"""What a Kubric worker would have in memory after rendering: layers and metadata of an analytic world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.motion import MotionKind
from datakit.worlds import World, WorldFrame

VIEW = "camera"
#: Blender's depth of empty background, along the optical axis.
EMPTY_Z = 1e10
#: Millimetres; any value does, K only knows the ratio to the focal length.
SENSOR_WIDTH = 32.0
#: Physical constants that Kubric's metadata need and an analytic world does not have.
_PHYSICS = {"mass": 1.0, "friction": 0.5, "restitution": 0.5}
_GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])
_CORNERS = np.stack(np.meshgrid((0, 1), (0, 1), (0, 1), indexing="ij"), axis=-1).reshape(8, 3)
_TOLERANCE_PX = 1e-9

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Capture:
    """A rendered clip in Kubric's own terms.

    Attributes:
        name: Of the world.
        size: (W, H).
        rgba: (T, H, W, 4) uint8.
        depth: (T, H, W) float32 distance along the ray, 1e10-like where empty.
        segmentation: (T, H, W) uint32, k + 1 = instances[k].
        normal: (T, H, W, 3) uint16.
        object_coordinates: (T, H, W, 3) uint16.
        flows: "forward_flow" and "backward_flow" -> (T, H, W, 2) float32, (row, column) px, backward as
            x(t) - x(t-1).
        metadata: What goes to metadata.json, but its flags.
    """

    name: str
    size: tuple[int, int]
    rgba: NDArray[np.uint8]
    depth: NDArray[np.float32]
    segmentation: NDArray[np.uint32]
    normal: NDArray[np.uint16]
    object_coordinates: NDArray[np.uint16]
    flows: dict[str, NDArray[np.float32]]
    metadata: dict[str, Any]


def capture(world: World) -> Capture:
    """Render a world as a Kubric worker would.

    Args:
        world: One view called "camera"; static and rigid instances only.

    Raises:
        ConventionError: It has other views, deforming instances, intrinsics that are not f, f, W/2, H/2 and
            constant, or more instances than 8-bit ids.
    """
    _check_expressible(world)
    view = world.views[VIEW]
    # Frames are narrowed to Kubric's types one by one: as rendered they are four times the size.
    frames = [_as_passes(world.render(t), view.intrinsics[0]) for t in range(world.num_frames)]
    passes = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    ids = passes.pop("ids")
    order = _order_by_pixels(ids, world)
    segmentation = _renumber(ids, order)
    return Capture(
        name=world.name,
        size=view.size,
        segmentation=segmentation,
        flows={name: passes.pop(name) for name in ("forward_flow", "backward_flow")},
        metadata=_metadata(world, order, segmentation),
        **passes,
    )


def _as_passes(frame: WorldFrame, intrinsics: Float) -> dict[str, NDArray[Any]]:
    return {
        "ids": frame.instances,
        "rgba": _opaque(frame.rgb),
        "depth": _distance(frame, intrinsics),
        "normal": _to_uint16((_known(frame.normals_world) + 1) / 2),
        "object_coordinates": _to_uint16(_known(frame.object_coords)),
        "forward_flow": _row_column(frame.flow_forward),
        "backward_flow": -_row_column(frame.flow_backward),
    }


def _check_expressible(world: World) -> None:
    if list(world.views) != [VIEW]:
        raise ConventionError(
            "Kubric clips have one camera.", where=world.name, expected=[VIEW], found=[*world.views]
        )
    deforming = [
        item.id for item in world.instances if item.motion not in (MotionKind.STATIC, MotionKind.RIGID)
    ]
    if deforming:
        raise ConventionError(
            "Kubric's metadata can only hold static and rigid instances.",
            where=world.name,
            expected="MotionKind STATIC or RIGID",
            found=f"instances {deforming}",
        )
    view = world.views[VIEW]
    focal = view.intrinsics[0, 0, 0]
    want = np.array([[focal, 0, view.size[0] / 2], [0, focal, view.size[1] / 2], [0, 0, 1]])
    if np.abs(view.intrinsics - want).max() > _TOLERANCE_PX:
        raise ConventionError(
            "Kubric's camera has square pixels, a centred axis and constant focal length.",
            where=f"{world.name}: intrinsics",
            expected=want.tolist(),
            found=view.intrinsics[0].tolist(),
        )


def _order_by_pixels(ids: NDArray[np.uint32], world: World) -> list[int]:
    """Sort instance ids by total visible pixels, largest first; never-visible ones are dropped."""
    totals = {item.id: int((ids == item.id).sum()) for item in world.instances}
    order = sorted((id for id, total in totals.items() if total), key=lambda id: (-totals[id], id))
    if len(order) > 255:
        raise ConventionError(
            "An 8-bit segmentation holds 255 instances.", where=world.name, expected=255, found=len(order)
        )
    return order


def _renumber(ids: NDArray[np.uint32], order: list[int]) -> NDArray[np.uint32]:
    table = np.zeros(int(ids.max()) + 1, dtype=np.uint32)
    for k, id in enumerate(order):
        table[id] = k + 1
    return table[ids]


def _opaque(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)


def _distance(frame: WorldFrame, intrinsics: Float) -> NDArray[np.float32]:
    height, width = frame.z_depth.shape
    empty = g.ray_distance_from_z(np.full((height, width), EMPTY_Z), intrinsics)
    return np.where(np.isnan(frame.ray_distance), empty, frame.ray_distance).astype(np.float32)


def _known(values: Float) -> Float:
    # Blender gives zeros where a pass has no value.
    return np.nan_to_num(values, nan=0.0)


def _to_uint16(values: Float) -> NDArray[np.uint16]:
    # Truncated, not rounded: kubric/renderer/blender_utils.py:453.
    return (np.clip(values, 0, 1) * 65535).astype(np.uint16)


def _row_column(flow: Float) -> NDArray[np.float32]:
    return _known(flow)[..., ::-1].astype(np.float32)


def _wxyz(world_from_body: Float) -> list[list[float]]:
    quaternions: list[list[float]] = g.quaternion_wxyz_from_rotation(world_from_body[..., :3, :3]).tolist()
    return quaternions


def _metadata(world: World, order: list[int], segmentation: NDArray[np.uint32]) -> dict[str, Any]:
    width, height = world.views[VIEW].size
    rate = int(world.fps) if float(world.fps).is_integer() else float(world.fps)
    return {
        "metadata": {
            "resolution": [width, height],
            "frame_rate": rate,
            "step_rate": 240,
            "gravity": [0.0, 0.0, -10.0],
            "num_frames": world.num_frames,
            "seed": world.seed,
            "background": "world",
            "num_instances": len(order),
        },
        "camera": _camera(world),
        "instances": [_instance(world, id, segmentation == k) for k, id in enumerate(order, start=1)],
    }


def _camera(world: World) -> dict[str, Any]:
    view = world.views[VIEW]
    width, height = view.size
    focal = float(view.intrinsics[0, 0, 0]) / width * SENSOR_WIDTH
    f_x = focal / SENSOR_WIDTH
    world_from_gl = view.world_from_cam @ _GL_FROM_CV
    # `R` is the pose the camera had when the script ended: one frame after the clip.
    after, _ = world.camera_at(VIEW, [world.num_frames / world.fps])
    return {
        "focal_length": focal,
        "sensor_width": SENSOR_WIDTH,
        "field_of_view": float(2 * np.arctan2(SENSOR_WIDTH / 2, focal)),
        "positions": world_from_gl[:, :3, 3].tolist(),
        "quaternions": _wxyz(world_from_gl),
        "K": [[f_x, 0.0, -0.5], [0.0, -f_x * width / height, -0.5], [0.0, 0.0, -1.0]],
        "R": (after[0] @ _GL_FROM_CV).tolist(),
    }


def _instance(world: World, id: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    item = next(item for item in world.instances if item.id == id)
    poses = item.world_from_instance
    corners = item.box_lo + _CORNERS * (item.box_hi - item.box_lo)
    boxes = _boxes(mask)
    velocities, angular = _velocities(world, id)
    return {
        **_PHYSICS,
        "asset_id": item.name,
        "category": "None",
        "description": item.name,
        "scale": 1.0,
        "is_dynamic": bool(item.is_dynamic),
        "positions": poses[:, :3, 3].tolist(),
        "quaternions": _wxyz(poses),
        "velocities": velocities.tolist(),
        "angular_velocities": angular.tolist(),
        "bboxes_3d": g.transform_points(poses[:, None], corners).tolist(),
        "image_positions": _image_positions(world, poses[:, :3, 3]).tolist(),
        "bboxes": [box for _, box in boxes],
        "bbox_frames": [t for t, _ in boxes],
        "visibility": mask.sum(axis=(1, 2)).tolist(),
    }


def _boxes(mask: NDArray[np.bool_]) -> list[tuple[int, list[float]]]:
    """Bound visible pixels per frame: ymin, xmin, ymax, xmax in [0, 1], maxima one past the last pixel."""
    _, height, width = mask.shape
    found = []
    for t, frame in enumerate(mask):
        rows, cols = np.nonzero(frame)
        if rows.size:
            box = [
                rows.min() / height,
                cols.min() / width,
                (rows.max() + 1) / height,
                (cols.max() + 1) / width,
            ]
            found.append((t, [float(v) for v in box]))
    return found


def _velocities(world: World, id: int) -> tuple[Float, Float]:
    """Differentiate the pose at the frames, (T, 3) each, in m/s and rad/s of the world frame."""
    step = 1e-4 / world.fps
    before, after = (world.world_from_instance_at(id, world.times + sign * step / 2) for sign in (-1, 1))
    turn = (after[:, :3, :3] @ np.swapaxes(before[:, :3, :3], 1, 2)) / step
    antisymmetric = (turn - np.swapaxes(turn, 1, 2)) / 2
    angular = np.stack([antisymmetric[:, 2, 1], antisymmetric[:, 0, 2], antisymmetric[:, 1, 0]], axis=-1)
    return (after[:, :3, 3] - before[:, :3, 3]) / step, angular


def _image_positions(world: World, positions: Float) -> Float:
    """Project instance origins to [0, 1] x, y; points behind the camera too, as Kubric does."""
    view = world.views[VIEW]
    cam = g.transform_points(g.invert_rigid(view.world_from_cam), positions)
    uvw = np.einsum("tij,tj->ti", view.intrinsics, cam)
    return np.asarray(uvw[:, :2] / uvw[:, 2:] / np.array(view.size))
