"""A perfect oracle in place of a model: answers from a world in closed form, or from a scene of ours.

With it inference is shown to be right: whatever is wrong then is wrong in inference. Errors of a model can be added,
each a function of the query and a seed alone, so that neither the order nor the batch of queries changes an answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError, UsageError
from datakit.motion import Visibility
from datakit.queries.clip_view import ClipView, Draw
from datakit.queries.targets import answer as answer_draw
from datakit.scene import Scene
from datakit.worlds import World
from datakit.worlds.cast import rotate

from .answers import Answer, ClipFrames, ClipInfo, checked_query

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Words = NDArray[np.uint64]

#: What a model says of what it knows nothing about: the least of its sigmoid (`datakit.d4rt.decoder`).
NOTHING_KNOWN = 1e-4
#: Longest clip by default, the paper's.
_MAX_FRAMES = 48


@dataclass(frozen=True)
class Errors:
    """What is wrong with the answers.

    Attributes:
        noise: Deviation of each coordinate of a point and of its displacement, as a share of its depth; of its
            place in the picture, as a share of the picture; of its normal, in radians.
        outliers: Share of answers whose point lies anywhere between a third of and three times its distance, off by
            as much to the side; their confidence says nothing of it.
        flips: Share of answers whose visibility is the opposite.
        scale_spread: Deviation of the logarithm of a clip's unit: answers are known up to scale.
        baseline_spread: Deviation of the logarithm of a factor by which cameras of a clip are further apart than
            its depth says: a clip that contradicts itself, as models' do.
        seed: Of all of these.
    """

    noise: float = 0.0
    outliers: float = 0.0
    flips: float = 0.0
    scale_spread: float = 0.0
    baseline_spread: float = 0.0
    seed: int = 0


class Truth(Protocol):
    """Knows a video's frames by their numbers."""

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)."""
        ...

    @property
    def num_frames(self) -> int:
        """Of the whole video."""
        ...

    @property
    def world_from_cam(self) -> Float:
        """(num_frames, 4, 4)."""
        ...

    def clip(self, numbers: Index) -> TruthOfClip:
        """Get ready for queries about some frames."""
        ...


class TruthOfClip(Protocol):
    """Answers about some frames of a video."""

    def answer(self, uv_px: Float, t_src: Index, t_tgt: Index, t_cam: Index) -> Answer:
        """Answer exactly; times count in the clip."""
        ...


@dataclass(frozen=True)
class _WorldTruth:
    world: World
    view: str

    @property
    def size(self) -> tuple[int, int]:
        return self.world.views[self.view].size

    @property
    def num_frames(self) -> int:
        return self.world.num_frames

    @property
    def world_from_cam(self) -> Float:
        return self.world.views[self.view].world_from_cam

    def clip(self, numbers: Index) -> TruthOfClip:
        return _WorldClip(self.world, self.view, numbers)


@dataclass(frozen=True)
class _WorldClip:
    world: World
    view: str
    numbers: Index

    def answer(self, uv_px: Float, t_src: Index, t_tgt: Index, t_cam: Index) -> Answer:
        world, times = self.world, self.world.times[self.numbers]
        view = world.views[self.view]
        hits = world.cast_pixels(self.view, uv_px, _short(times[t_src]))
        known = hits.instance >= 0
        points_tgt = np.full((len(uv_px), 3), np.nan)
        points_tgt[known] = world.carry(
            hits.instance[known], hits.material[known], _short(times[t_tgt[known]])
        )
        state, _, _ = world.see(self.view, points_tgt, times[t_tgt])
        # A pixel sees its own point.
        is_seen = known & ((state == Visibility.VISIBLE) | (t_src == t_tgt))
        cam_from_world = g.invert_rigid(view.world_from_cam[self.numbers])[t_cam]
        xyz = g.transform_points(cam_from_world, points_tgt)
        uv_cam, _ = g.project_points(xyz, view.intrinsics[self.numbers][t_cam])
        turn = cam_from_world[:, :3, :3]
        displacement = np.einsum("nij,nj->ni", turn, points_tgt - hits.points_world)
        normal = np.einsum("nij,nj->ni", turn, self._normals(hits, times, t_src, t_tgt))
        confidence = np.where(known, 1.0, NOTHING_KNOWN)
        return Answer(xyz, uv_cam / view.size, is_seen.astype(float), displacement, normal, confidence)

    def _normals(self, hits: Any, times: Float, t_src: Index, t_tgt: Index) -> Float:
        """World normals at t_tgt, on the side that the source frame saw."""
        out = np.full(hits.points_world.shape, np.nan)
        for body in self.world.bodies:
            rows = np.flatnonzero(hits.instance == body.id)
            if not rows.size:
                continue
            at = [
                self._body_normals(body, hits.material[rows], _short(times[t[rows]])) for t in (t_src, t_tgt)
            ]
            side = np.sign(np.einsum("ni,ni->n", at[0], hits.normals_world[rows]))
            out[rows] = at[1] * side[:, None]
        return out

    @staticmethod
    def _body_normals(body: Any, material: Float, times: Float) -> Float:
        return rotate(body.path.world_from_instance(times), body.shape.normals(material, times))


def _short(times: Float) -> Float:
    """One time where all are the same: worlds are much faster then."""
    return times[:1] if len(times) and (times == times[0]).all() else times


@dataclass(frozen=True)
class _SceneTruth:
    scene: Scene
    view: str

    @property
    def size(self) -> tuple[int, int]:
        return self.scene.views[self.view].size

    @property
    def num_frames(self) -> int:
        return self.scene.views[self.view].num_frames

    @property
    def world_from_cam(self) -> Float:
        return self.scene.views[self.view].world_from_cam

    def clip(self, numbers: Index) -> TruthOfClip:
        return _SceneClip(_view_of(self.scene, self.view, numbers))


@dataclass(frozen=True)
class _SceneClip:
    """What the training's targets say: `datakit.queries.answer`."""

    clip: ClipView

    def answer(self, uv_px: Float, t_src: Index, t_tgt: Index, t_cam: Index) -> Answer:
        draw = Draw(uv_px, t_src, t_tgt, t_cam, np.zeros(len(uv_px), np.uint8))
        found = answer_draw(self.clip, draw)
        has_xyz, points = found["has_xyz"], found["xyz"].astype(np.float64)

        def masked(name: str, mask: str) -> Float:
            return np.where(found[mask][:, None], found[name].astype(np.float64), np.nan)

        k = self.clip.intrinsics[t_cam]
        uv_cam, _ = g.project_points(np.where(has_xyz[:, None], points, np.nan), k)
        return Answer(
            xyz=masked("xyz", "has_xyz"),
            uv=uv_cam / self.clip.size,
            visible=(found["visible"] & found["has_visible"]).astype(float),
            displacement=masked("displacement", "has_displacement"),
            normal=masked("normal", "has_normal"),
            confidence=np.where(has_xyz, 1.0, NOTHING_KNOWN),
        )


def _view_of(scene: Scene, name: str, numbers: Index) -> ClipView:
    """Frames of a view as targets are computed from them; the network's grid is the colour grid."""
    view, path = scene.views[name], scene.path
    if view.record["camera_model"] != "pinhole":
        raise ConventionError(
            "Truth is told by pinhole cameras only",
            where=f"{path}, view {name}",
            found=view.record["camera_model"],
            mend="rectify the scene",
        )
    maps = [view.z_depth(int(t)) for t in numbers]
    if any(z is None for z in maps):
        raise ConventionError("View has no depth to answer from", where=f"{path}, view {name}")
    width, height = view.size
    # Colours are not looked at: no memory is spent on them.
    blank = np.broadcast_to(np.zeros(1, np.uint8), (len(numbers), height, width, 3))

    def on_depth_grid(layer: str) -> bool:
        same = view.layers and layer in view.layers and view.layer_size(layer) == view.depth_size
        return bool(same and np.array_equal(view.layer_intrinsics(layer), view.depth_intrinsics))

    if "instances" in view.layers and not on_depth_grid("instances"):
        raise ConventionError(
            "Instances are on another grid than depth", where=f"{path}, view {name}", expected=view.depth_size
        )
    return ClipView(
        video=blank,
        times=view.times[numbers],
        intrinsics=view.intrinsics[numbers],
        world_from_cam=view.world_from_cam[numbers],
        pose_is_known=view.pose_is_known[numbers],
        aspect_ratio=width / height,
        z_depth=np.stack([np.asarray(z) for z in maps]),
        depth_intrinsics=view.depth_intrinsics[numbers],
        depth_kind=str(view.depth_kind),
        instances=_stack([view.instances(int(t)) for t in numbers]),
        normals_world=_stack([view.normals(int(t)) for t in numbers])
        if on_depth_grid("normals_world")
        else None,
        patch_frames=blank,
        patch_intrinsics=view.intrinsics[numbers],
        motion=scene.motion,
        motion_index=view.motion_index[numbers],
        boundary_depth=np.zeros((0, 3), np.int32),
        boundary_motion=np.zeros((0, 3), np.int32),
    )


def _stack(maps: list[Any]) -> Any:
    return None if any(each is None for each in maps) else np.stack(maps)


@dataclass(frozen=True)
class TruthAnswers:
    """An `Answerer` that knows.

    Frames are found by the numbers of a clip, which must be those of the world or scene; pictures are not looked at.

    Attributes:
        truth: What it knows.
        errors: What is wrong with its answers.
        max_frames: Frames of the longest clip.
    """

    truth: Truth
    errors: Errors = Errors()
    max_frames: int = _MAX_FRAMES

    @classmethod
    def of_world(
        cls, world: World, view: str = "camera", errors: Errors | None = None, max_frames: int = _MAX_FRAMES
    ) -> TruthAnswers:
        """Answer in closed form from an analytic world.

        Raises:
            UsageError: No such view.
        """
        if view not in world.views:
            raise UsageError("No such view", expected=", ".join(world.views), found=view)
        return cls(_WorldTruth(world, view), errors or Errors(), max_frames)

    @classmethod
    def of_scene(
        cls,
        scene: Scene,
        view: str | None = None,
        errors: Errors | None = None,
        max_frames: int = _MAX_FRAMES,
    ) -> TruthAnswers:
        """Answer from an open scene by the rules of the training's targets.

        Args:
            scene: Open scene.
            view: Its view; None for its first.
            errors: What is to be wrong.
            max_frames: Frames of the longest clip.

        Raises:
            UsageError: No such view.
        """
        name = next(iter(scene.views)) if view is None else view
        if name not in scene.views:
            raise UsageError("No such view", where=scene.path, expected=", ".join(scene.views), found=name)
        return cls(_SceneTruth(scene, name), errors or Errors(), max_frames)

    def open(self, clip: ClipFrames) -> TruthClip:
        """Open a clip of the world's or scene's frames."""
        return self.open_info(clip.info)

    def open_info(self, info: ClipInfo) -> TruthClip:
        """Open a clip without pictures.

        Raises:
            UsageError: The clip is too long, has another size, or frames that there are none of.
        """
        if not 1 <= info.num_frames <= self.max_frames:
            raise UsageError("A clip is too long", expected=f"1 to {self.max_frames}", found=info.num_frames)
        if info.numbers.min() < 0 or info.numbers.max() >= self.truth.num_frames:
            raise UsageError(
                "A clip has frames that truth does not know",
                expected=f"0 to {self.truth.num_frames - 1}",
                found=info.numbers.tolist(),
            )
        if info.size != self.truth.size:
            raise UsageError("A clip has another size", expected=self.truth.size, found=info.size)
        poses = self.truth.world_from_cam[info.numbers]
        return TruthClip(info, self.truth.clip(info.numbers), self.errors, g.invert_rigid(poses))

    def describe(self) -> dict[str, Any]:
        """Return what answers follow from."""
        return {"name": "truth", "errors": asdict(self.errors), "max_frames": self.max_frames}


@dataclass(frozen=True)
class TruthClip:
    """An open clip of `TruthAnswers`.

    Attributes:
        info: What the clip is.
        truth: Answers exactly.
        errors: What is wrong with its answers.
        cam_from_world: (T, 4, 4) of its frames.
    """

    info: ClipInfo
    truth: TruthOfClip
    errors: Errors
    cam_from_world: Float

    @property
    def num_frames(self) -> int:
        """T."""
        return self.info.num_frames

    @property
    def scale(self) -> float:
        """The clip's unit: answers are so many times as long as truth."""
        return self._of_clip(self.errors.scale_spread, 1)

    @property
    def baseline(self) -> float:
        """How much further its cameras are apart than its depth says."""
        return self._of_clip(self.errors.baseline_spread, 2)

    def ask(self, uv: Any, t_src: Any, t_tgt: Any, t_cam: Any) -> Answer:
        """Answer; see `OpenClip`."""
        places, src, tgt, cam = checked_query(uv, t_src, t_tgt, t_cam, self.num_frames)
        exact = self.truth.answer(places * self.info.size, src, tgt, cam)
        answer = self._units(exact, src, cam)
        if self.errors.noise or self.errors.outliers or self.errors.flips:
            answer = spoil(answer, _words(places, src, tgt, cam), self.errors)
        return answer

    def _of_clip(self, spread: float, stream: int) -> float:
        if not spread:
            return 1.0
        draw = np.random.default_rng([self.errors.seed, stream, int(self.info.numbers[0])])
        return float(np.exp(spread * draw.standard_normal()))

    def _units(self, answer: Answer, src: Index, cam: Index) -> Answer:
        xyz = answer.xyz
        if self.baseline != 1:
            # The source camera as seen from t_cam moves away; what it sees moves with it.
            cam_from_src = self.cam_from_world[cam] @ g.invert_rigid(self.cam_from_world[src])
            xyz = xyz + (self.baseline - 1) * cam_from_src[:, :3, 3]
        return replace(answer, xyz=xyz * self.scale, displacement=answer.displacement * self.scale)


def spoil(answer: Answer, words: Words, errors: Errors) -> Answer:
    """Add errors to exact answers.

    Args:
        answer: Exact, N of them.
        words: (N,) uint64, one hash for each query; all chance follows from it and the seed.
        errors: Which.
    """
    words = _mixed(words ^ _mixed(np.full(1, errors.seed, np.uint64)))
    depth = np.abs(answer.xyz[:, 2:])
    xyz = answer.xyz + errors.noise * depth * _normals(words, 0, 3)
    displacement = answer.displacement + errors.noise * depth * _normals(words, 3, 3)
    uv = answer.uv + errors.noise * _normals(words, 6, 2)
    normal = answer.normal + errors.noise * _normals(words, 8, 3)
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    is_outlier = _uniform(words, 11) < errors.outliers
    factor = np.exp((2 * _uniform(words, 12) - 1) * np.log(3.0))[:, None]
    wild = answer.xyz * factor + 0.5 * depth * _normals(words, 13, 3)
    is_flipped = _uniform(words, 16) < errors.flips
    return Answer(
        np.where(is_outlier[:, None], wild, xyz),
        uv,
        np.where(is_flipped, 1 - answer.visible, answer.visible),
        displacement,
        normal,
        answer.confidence,
    )


def _words(uv: Float, *times: Index) -> Words:
    """One hash a query."""
    words = np.zeros(len(uv), np.uint64)
    for part in (*np.ascontiguousarray(uv.T).view(np.uint64), *(t.astype(np.uint64) for t in times)):
        words = _mixed(words ^ part)
    return words


def _mixed(words: Words) -> Words:
    """Mix bits so that near inputs are far apart: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _uniform(words: Words, stream: int) -> Float:
    """(N,) numbers in (0, 1), the same for the same words."""
    mixed = _mixed(words ^ _mixed(np.full(1, stream + 1, np.uint64)))
    return np.asarray(((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def _normals(words: Words, stream: int, count: int) -> Float:
    """(N, count) normal numbers (Box-Muller)."""
    columns = []
    for k in range(stream, stream + count):
        radius = np.sqrt(-2 * np.log(_uniform(words, 2 * k + 100)))
        columns.append(radius * np.cos(2 * np.pi * _uniform(words, 2 * k + 101)))
    return np.stack(columns, axis=1)
