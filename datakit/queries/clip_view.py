"""A clip as the network sees it: chosen frames, cropped and resized, with geometry that still holds exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError, UsageError
from datakit.geometry import invert_rigid
from datakit.scene.records import MotionRecord

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ClipView:
    """T frames of one view. Every raster keeps its own grid; grids of one frame share centre and axes.

    Attributes:
        video: (T, H, W, 3) uint8, the network's frames.
        times: (T,) float64 seconds.
        intrinsics: (T, 3, 3) float64 of the network grid, corner origin, pinhole.
        world_from_cam: (T, 4, 4) float64, NaN unknown.
        pose_is_known: (T,) bool.
        aspect_ratio: W / H of what the network's square shows.
        z_depth: (T, Hd, Wd) float32, NaN unknown.
        depth_intrinsics: (T, 3, 3) of the depth grid.
        depth_kind: As in `schemas/layer.yaml`.
        instances: (T, Hd, Wd) integer on the depth grid, or None for all background.
        normals_world: (T, Hd, Wd, 3) float32 on the depth grid, NaN unknown, or None.
        patch_frames: (T, Hp, Wp, 3) uint8, the sharpest frames at hand.
        patch_intrinsics: (T, 3, 3) of their grid.
        motion: The scene's motion.
        motion_index: (T,) int64 sample of the motion clock of each frame, -1 for none.
        boundary_depth: (B, 3) int: frame of this clip, row, column on the depth grid; sorted by frame.
        boundary_motion: (B, 3) likewise.
    """

    video: NDArray[np.uint8]
    times: Float
    intrinsics: Float
    world_from_cam: Float
    pose_is_known: NDArray[np.bool_]
    aspect_ratio: float
    z_depth: NDArray[np.float32]
    depth_intrinsics: Float
    depth_kind: str
    instances: NDArray[Any] | None
    normals_world: NDArray[np.float32] | None
    patch_frames: NDArray[np.uint8]
    patch_intrinsics: Float
    motion: MotionRecord
    motion_index: NDArray[np.int64]
    boundary_depth: NDArray[np.integer[Any]]
    boundary_motion: NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        """Check shapes once: kernels read by index and look at no bounds.

        Raises:
            ConventionError: Fields do not fit each other.
        """
        count = len(self.times)
        cameras = {"intrinsics": 3, "world_from_cam": 4, "depth_intrinsics": 3, "patch_intrinsics": 3}
        for name, side in cameras.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float64))
            _require(name, getattr(self, name).shape, (count, side, side))
        object.__setattr__(self, "motion_index", np.ascontiguousarray(self.motion_index, np.int64))
        _require("motion_index", self.motion_index.shape, (count,))
        grid = (count, *self.z_depth.shape[1:3])
        _require("z_depth", self.z_depth.shape, grid)
        if self.instances is not None:
            _require("instances", self.instances.shape, grid)
        if self.normals_world is not None:
            _require("normals_world", self.normals_world.shape, (*grid, 3))
        _require("patch_frames", self.patch_frames.shape, (count, *self.patch_frames.shape[1:3], 3))
        for name in ("boundary_depth", "boundary_motion"):
            rows = getattr(self, name)
            _require(name, rows.shape, (len(rows), 3))
            if len(rows) and not 0 <= rows[:, 0].min() <= rows[:, 0].max() < count:
                raise ConventionError(
                    f"{name} names a frame that the clip does not have", expected=f"0..{count - 1}"
                )

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the network grid."""
        return self.video.shape[2], self.video.shape[1]

    @property
    def depth_size(self) -> tuple[int, int]:
        """(W, H) of the depth grid."""
        return self.z_depth.shape[2], self.z_depth.shape[1]

    @cached_property
    def depth_from_network(self) -> Float:
        """(T, 3, 3) homographies from network pixels to depth pixels."""
        return np.asarray(self.depth_intrinsics @ np.linalg.inv(self.intrinsics))

    @cached_property
    def network_from_depth(self) -> Float:
        """(T, 3, 3) homographies from depth pixels to network pixels."""
        return np.asarray(np.linalg.inv(self.depth_from_network), dtype=np.float64)

    @cached_property
    def patch_from_network(self) -> Float:
        """(T, 3, 3) homographies from network pixels to pixels of the patch frames."""
        return np.asarray(self.patch_intrinsics @ np.linalg.inv(self.intrinsics))

    @cached_property
    def cam_from_world(self) -> Float:
        """(T, 4, 4), NaN unknown."""
        return invert_rigid(self.world_from_cam)

    def is_inside(self, uv_px: Float) -> NDArray[np.bool_]:
        """Tell which network pixels (N, 2) lie in the image; NaN does not."""
        width, height = self.size
        u, v = uv_px[:, 0], uv_px[:, 1]
        return np.asarray((u >= 0) & (u <= width) & (v >= 0) & (v <= height))


def _require(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ConventionError(f"{name} of a clip has another shape", expected=expected, found=found)


@dataclass(frozen=True)
class Draw:
    """Which questions are asked: what a sampler returns.

    Attributes:
        uv_px: (N, 2) float64 on the network grid.
        t_src: (N,) int64.
        t_tgt: (N,) int64.
        t_cam: (N,) int64.
        kind: (N,) uint8: 0 anywhere, 1 near a depth boundary, 2 near a motion boundary.
    """

    uv_px: Float
    t_src: NDArray[np.int64]
    t_tgt: NDArray[np.int64]
    t_cam: NDArray[np.int64]
    kind: NDArray[np.uint8]

    def checked(self, clip: ClipView) -> Draw:
        """Give the same questions in plain arrays, fit for kernels.

        Raises:
            UsageError: They do not fit each other or the clip; the sampler is wrong.
        """
        count = len(self.uv_px)
        plain = Draw(
            np.ascontiguousarray(self.uv_px, np.float64),
            np.ascontiguousarray(self.t_src, np.int64),
            np.ascontiguousarray(self.t_tgt, np.int64),
            np.ascontiguousarray(self.t_cam, np.int64),
            np.ascontiguousarray(self.kind, np.uint8),
        )
        times = (plain.t_src, plain.t_tgt, plain.t_cam)
        shapes = [plain.uv_px.shape, *(t.shape for t in times), plain.kind.shape]
        if shapes != [(count, 2)] + 4 * [(count,)]:
            raise UsageError("A sampler's arrays must be (N, 2) and (N,)", found=shapes)
        last = clip.num_frames - 1
        if count and not all(0 <= t.min() <= t.max() <= last for t in times):
            raise UsageError("A sampler named a frame that the clip does not have", expected=f"0..{last}")
        return plain
