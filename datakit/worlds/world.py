"""A world: bodies and cameras over time, rendered and tracked in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit import geometry as g
from datakit.errors import UsageError
from datakit.motion import MotionKind, Visibility

from .cast import Hits, WorldInstance, cast_rays, first_hits, rotate
from .paths import CameraMotion, RigidPath
from .shapes import Float, Shape
from .textures import Texture

#: A point is seen if nothing lies nearer than this share of its distance before it.
_SEE_EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class WorldView:
    """One camera of a world.

    Attributes:
        size: (W, H) pixels.
        intrinsics: (T, 3, 3) float64, corner-origin pixels.
        world_from_cam: (T, 4, 4) float64 at the frames, OpenCV axes.
        path: The camera's pose and intrinsics at any time.
    """

    size: tuple[int, int]
    intrinsics: Float
    world_from_cam: Float
    path: CameraMotion


@dataclass(frozen=True, eq=False)
class WorldFrame:
    """All layers of one rendered frame, each on the same (H, W) grid.

    Attributes:
        rgb: (H, W, 3) uint8.
        z_depth: (H, W) float64 along the optical axis in metres, NaN where nothing is hit.
        ray_distance: (H, W) float64 along the ray in metres, NaN where nothing is hit.
        instances: (H, W) uint32, 0 for the background and where nothing is hit.
        normals_world: (H, W, 3) float64 unit, towards the camera, NaN where nothing is hit.
        object_coords: (H, W, 3) float64 in [0, 1], zeros on the background. Of deforming instances: the rest
            position, so that a surface point keeps its value.
        flow_forward: (H, W, 2) float64 px from this frame to the next, NaN where nothing is hit or the point
            falls behind the camera. Known at the last frame too: the world goes on.
        flow_backward: (H, W, 2) float64 px from this frame to the one before, likewise.
    """

    rgb: NDArray[np.uint8]
    z_depth: Float
    ray_distance: Float
    instances: NDArray[np.uint32]
    normals_world: Float
    object_coords: Float
    flow_forward: Float
    flow_backward: Float


@dataclass(frozen=True, eq=False)
class World:
    """A synthetic world with closed-form truth; metres, seconds, z up.

    Attributes:
        name: Usable as a scene id.
        seed: What it was drawn from.
        num_frames: T.
        fps: Frames per second; frame t is at t / fps.
        views: Cameras by name; "camera" is always there.
        instances: Foreground instances, ids 1, 2, ... in order.
        background: Instance 0, static.
    """

    name: str
    seed: int
    num_frames: int
    fps: float
    views: dict[str, WorldView]
    instances: tuple[WorldInstance, ...]
    background: WorldInstance

    @property
    def times(self) -> Float:
        """(T,) float64 seconds."""
        return np.arange(self.num_frames) / self.fps

    @property
    def bodies(self) -> tuple[WorldInstance, ...]:
        """Background and instances; the index of each is its id."""
        return (self.background, *self.instances)

    def world_from_instance_at(self, id: int, times: ArrayLike) -> Float:
        """Return (K, 4, 4) poses of an instance at any times (K,) in seconds.

        Raises:
            UsageError: No instance has this id.
        """
        if not 0 <= id < len(self.bodies):
            raise UsageError("No such instance", expected=f"0 to {len(self.instances)}", found=id)
        return self.bodies[id].path.world_from_instance(times)

    def camera_at(self, view: str, times: ArrayLike) -> tuple[Float, Float]:
        """Return world_from_cam (K, 4, 4) and intrinsics (K, 3, 3) at any times (K,) in seconds."""
        path = self._view(view).path
        return path.world_from_cam(times), path.intrinsics(times)

    def cast(self, origins_world: ArrayLike, directions_world: ArrayLike, times: ArrayLike) -> Hits:
        """Cast free rays, as a lidar or a rolling shutter needs.

        Args:
            origins_world: (N, 3) or (3,), metres.
            directions_world: (N, 3), any length but zero.
            times: (N,) or a number, seconds.

        Returns:
            Hits; their scale is in units of the direction's length.
        """
        origins = np.atleast_2d(np.asarray(origins_world, np.float64))
        directions = np.atleast_2d(np.asarray(directions_world, np.float64))
        return cast_rays(self.bodies, origins, directions, np.atleast_1d(np.asarray(times, np.float64)))

    def cast_pixels(self, view: str, uv_px: ArrayLike, times: ArrayLike) -> Hits:
        """Cast the rays of continuous pixels (N, 2) at times (N,) or a number; `scale` is z depth."""
        when = np.atleast_1d(np.asarray(times, np.float64))
        world_from_cam, intrinsics = self.camera_at(view, when)
        rays = g.camera_rays(np.atleast_2d(np.asarray(uv_px, np.float64)), intrinsics)
        return self.cast(world_from_cam[:, :3, 3], rotate(world_from_cam, rays), when)

    def colours(
        self, hits: Hits, points_du: Float, points_dv: Float, times: ArrayLike
    ) -> NDArray[np.float32]:
        """Paint hits.

        Args:
            hits: N hits.
            points_du: (N, 3) change of the hit point in the world over one pixel to the right, in metres.
            points_dv: (N, 3) likewise one pixel down.
            times: (N,) or a number, seconds.

        Returns:
            (N, 3) float32 RGB in [0, 1]; a miss is sky.
        """
        when = np.broadcast_to(np.asarray(times, np.float64), hits.scale.shape)
        out = np.full((len(when), 3), (0.62, 0.72, 0.84), np.float32)
        for body in self.bodies:
            rows = np.flatnonzero(hits.instance == body.id)
            if rows.size:
                at = when[:1] if np.ndim(times) == 0 else when[rows]
                out[rows] = _paint(body, hits, rows, (points_du[rows], points_dv[rows]), at)
        return out

    def render(
        self,
        t: int,
        view: str = "camera",
        intrinsics: ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> WorldFrame:
        """Render one frame with all layers, sampled at pixel centres.

        Args:
            t: Frame index, 0 to T - 1.
            view: Camera name.
            intrinsics: (3, 3) of another pixel grid of the same camera; None for the view's own.
            size: (W, H) of that grid; None for the view's own.

        Returns:
            The layers. Flow is in pixels of the grid that was asked for.

        Raises:
            UsageError: No such view or frame.
        """
        camera, width_height = self._view(view), size or self._view(view).size
        time = self._frame_times(np.array([t]))
        matrix = camera.intrinsics[t] if intrinsics is None else np.asarray(intrinsics, np.float64)
        width, height = width_height
        rays = g.camera_rays(g.pixel_centres(width_height).reshape(-1, 2), matrix)
        pose = camera.path.world_from_cam(time)
        directions = rotate(pose, rays)
        hits = cast_rays(self.bodies, pose[:, :3, 3], directions, time)
        du, dv = _pixel_steps(hits, directions, pose, matrix)
        grid_from_view = matrix @ np.linalg.inv(camera.intrinsics[t])
        flows = [
            self._flow(hits, camera.path, grid_from_view, width_height, time + sign / self.fps)
            for sign in (1, -1)
        ]
        z_depth = np.where(hits.instance >= 0, hits.scale, np.nan)
        rgb = np.round(255 * self.colours(hits, du, dv, time[0])).astype(np.uint8)
        return WorldFrame(
            rgb=rgb.reshape(height, width, 3),
            z_depth=z_depth.reshape(height, width),
            ray_distance=(z_depth * np.linalg.norm(rays, axis=1)).reshape(height, width),
            instances=np.maximum(hits.instance, 0).astype(np.uint32).reshape(height, width),
            normals_world=hits.normals_world.reshape(height, width, 3),
            object_coords=self._object_coords(hits).reshape(height, width, 3),
            flow_forward=flows[0].reshape(height, width, 2),
            flow_backward=flows[1].reshape(height, width, 2),
        )

    def track(
        self, view: str, uv_px: ArrayLike, t_src: ArrayLike, t_tgt: ArrayLike, view_tgt: str | None = None
    ) -> tuple[Float, NDArray[np.uint8]]:
        """Follow the surface points under continuous pixels, exactly.

        Args:
            view: Camera of the source pixels.
            uv_px: (N, 2) corner-origin pixels.
            t_src: (N,) source frame indices.
            t_tgt: (N,) target frame indices.
            view_tgt: Camera in which they are looked for; None for `view`.

        Returns:
            points_world (N, 3) at the target times, NaN unknown; and state (N,) `Visibility`: UNKNOWN where
            the source pixel is outside its image or its ray hits nothing.

        Raises:
            UsageError: No such view or frame.
        """
        uv = np.asarray(uv_px, np.float64).reshape(-1, 2)
        src, tgt = (np.broadcast_to(self._frame_times(np.asarray(t)), len(uv)) for t in (t_src, t_tgt))
        hits = self.cast_pixels(view, uv, src)
        known = (hits.instance >= 0) & _is_inside(uv, self._view(view).size)
        points = np.full((len(uv), 3), np.nan)
        points[known] = self.carry(hits.instance[known], hits.material[known], tgt[known])
        state, _, _ = self.see(view_tgt or view, points, tgt)
        return points, state

    def carry(self, instance: NDArray[np.int64], material: Float, times: ArrayLike) -> Float:
        """Return where material points (N, 3) of instances (N,) are in the world at times (N,) or one."""
        when = np.atleast_1d(np.asarray(times, np.float64))
        out = np.full(material.shape, np.nan)
        for body in self.bodies:
            rows = np.flatnonzero(instance == body.id)
            if rows.size:
                out[rows] = body.material_to_world(material[rows], when if len(when) == 1 else when[rows])
        return out

    def see(
        self, view: str, points_world: ArrayLike, times: ArrayLike
    ) -> tuple[NDArray[np.uint8], Float, Float]:
        """Tell which surface points a camera sees, by casting a ray to each of them.

        Args:
            view: Camera name.
            points_world: (N, 3) at `times`; NaN for unknown.
            times: (N,) or a number, seconds.

        Returns:
            state (N,) `Visibility`; uv_px (N, 2), NaN behind the camera; z_depth (N,).
        """
        points = np.asarray(points_world, np.float64)
        when = np.broadcast_to(np.asarray(times, np.float64), len(points))
        world_from_cam, intrinsics = self.camera_at(view, when)
        uv, z = g.project_points(g.transform_points(g.invert_rigid(world_from_cam), points), intrinsics)
        state = np.full(len(points), Visibility.UNKNOWN, np.uint8)
        known = np.isfinite(points).all(axis=1)
        inside = known & _is_inside(uv, self._view(view).size)
        state[known & ~inside] = Visibility.OUTSIDE
        eye = world_from_cam[inside, :3, 3]
        scale, _ = first_hits(self.bodies, eye, points[inside] - eye, when[inside])
        state[inside] = np.where(scale >= 1 - _SEE_EPSILON, Visibility.VISIBLE, Visibility.OCCLUDED)
        return state, uv, z

    def trajectories(self, id: int, num: int, times: ArrayLike | None = None) -> Float:
        """Return (N, K, 3) exact world trajectories of about `num` points spread over an instance.

        Args:
            id: Instance id; 0 for the background.
            num: Points wanted; shapes with a grid may give a few more or less.
            times: (K,) seconds; None for the frames.
        """
        if not 0 <= id < len(self.bodies):
            raise UsageError("No such instance", expected=f"0 to {len(self.instances)}", found=id)
        body, when = self.bodies[id], self.times if times is None else np.asarray(times, np.float64)
        material = body.shape.surface_points(num)
        flat = body.material_to_world(np.repeat(material, len(when), axis=0), np.tile(when, len(material)))
        return flat.reshape(len(material), len(when), 3)

    def _view(self, view: str) -> WorldView:
        if view not in self.views:
            raise UsageError("No such view", expected=", ".join(self.views), found=view)
        return self.views[view]

    def _frame_times(self, frames: NDArray[np.int64]) -> Float:
        if frames.size and (
            frames.min() < 0 or frames.max() >= self.num_frames or frames.dtype.kind not in "iu"
        ):
            raise UsageError(
                "No such frame", expected=f"integers, 0 to {self.num_frames - 1}", found=frames.tolist()
            )
        return np.asarray(frames / self.fps)

    def _flow(
        self, hits: Hits, path: CameraMotion, grid_from_view: Float, size: tuple[int, int], time: Float
    ) -> Float:
        moved = self.carry(hits.instance, hits.material, time)
        cam_from_world = g.invert_rigid(path.world_from_cam(time))
        points_cam = rotate(cam_from_world, moved) + cam_from_world[:, :3, 3]
        uv, _ = g.project_points(points_cam, grid_from_view @ path.intrinsics(time))
        return uv - g.pixel_centres(size).reshape(-1, 2)

    def _object_coords(self, hits: Hits) -> Float:
        lo = np.stack([body.box_lo for body in self.bodies])
        hi = np.stack([body.box_hi for body in self.bodies])
        row = np.maximum(hits.instance, 0)
        coords = np.clip((hits.material - lo[row]) / (hi - lo)[row], 0.0, 1.0)
        return np.where((hits.instance > 0)[:, None], coords, 0.0)


def make_instance(
    id: int,
    name: str,
    shape: Shape,
    path: RigidPath,
    texture: Texture,
    *,
    motion: MotionKind,
    times: Float,
    box: tuple[Float, Float] | None = None,
) -> WorldInstance:
    """Join a shape, a path and a texture, and work out the poses at the frames.

    Args:
        id: Instance id, 0 for the background.
        name: For people.
        shape: Surface in the instance frame.
        path: Pose over time.
        texture: Colour.
        motion: What kind of motion that is; STATIC promises that the path stands still.
        times: (T,) seconds, the frames.
        box: Another box for object_coords than the shape's own.

    Returns:
        The instance.
    """
    box_lo, box_hi = box or (shape.box_lo, shape.box_hi)
    return WorldInstance(
        id=id,
        name=name,
        motion=motion,
        world_from_instance=path.world_from_instance(times),
        box_lo=box_lo,
        box_hi=box_hi,
        is_dynamic=motion != MotionKind.STATIC,
        shape=shape,
        path=path,
        texture=texture,
    )


def make_view(path: CameraMotion, size: tuple[int, int], times: Float) -> WorldView:
    """Join a camera path and an image size, and work out poses and intrinsics at the frames."""
    return WorldView(size, path.intrinsics(times), path.world_from_cam(times), path)


def _is_inside(uv_px: Float, size: tuple[int, int]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(((uv_px >= 0) & (uv_px <= size)).all(axis=-1))


def _pixel_steps(hits: Hits, directions: Float, pose: Float, intrinsics: Float) -> tuple[Float, Float]:
    """Return (N, 3) changes of the hit point for one pixel right and one down, on the tangent plane."""
    steps_cam = np.asarray(
        np.linalg.inv(intrinsics)[:, :2].T, np.float64
    )  # change of the ray per pixel in u and in v
    along = np.einsum("ni,ni->n", hits.normals_world, directions)
    # The tangent plane of a grazing ray runs away to infinity; 50 times the footprint is grey enough.
    along = np.minimum(along, -0.02 * np.linalg.norm(directions, axis=1))
    out = []
    for step in rotate(pose, steps_cam):
        slide = (hits.normals_world @ step) / along
        out.append(hits.scale[:, None] * (step - slide[:, None] * directions))
    return out[0], out[1]


def _paint(
    body: WorldInstance, hits: Hits, rows: NDArray[np.int64], steps: Sequence[Float], times: Float
) -> NDArray[np.float32]:
    inverse = g.invert_rigid(body.path.world_from_instance(times))
    material = hits.material[rows]
    local = body.shape.from_material(material, times)
    # to_material is affine at any one time, so a difference of it is its exact derivative.
    moved = [body.shape.to_material(local + rotate(inverse, step), times) - material for step in steps]
    rest_normals = body.shape.normals(material, np.zeros(1))
    return body.texture.colour(material, rest_normals, np.stack(moved, axis=1))
