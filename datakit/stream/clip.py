"""From the members of a stored clip to a `ClipView`: only the frames that were chosen are decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ShardError
from datakit.geometry import homography_points, pixel_centres, resize_intrinsics
from datakit.motion import MotionKind
from datakit.queries import ClipView
from datakit.scene.records import MotionRecord
from datakit.shards import codecs

from . import images
from .coded import CodedRaster, DifferenceRaster
from .order import Sample
from .params import ClipParams

Float = NDArray[np.float64]
#: A grid for clips without depth: all unknown, and large enough for neighbours to be looked up.
_NO_DEPTH_SIZE = (4, 4)


def supervision_name(depth_kind: str | None, motion_kinds: Sequence[int]) -> str:
    """Name what supervises a clip.

    >>> supervision_name("rendered", [2, 1])
    'rendered depth, static + rigid motion'
    """
    motion = " + ".join(MotionKind(kind).name.lower() for kind in sorted(set(motion_kinds)))
    return f"{depth_kind + ' depth' if depth_kind else 'no depth'}, {motion} motion"


class ClipReader(Protocol):
    """What the stream asks of a shard set to read a clip; `datakit.shards.ShardSet` is one."""

    def key(self, i: int) -> str:
        """Name of a clip."""

    def has_member(self, i: int, kind: str) -> bool:
        """Whether a clip has this member."""

    def read_members(self, i: int, kinds: Iterable[str]) -> dict[str, memoryview]:
        """Checked bytes of some members of a clip."""


#: Members that queries are answered from, beside the two that every clip has.
_LAYERS = ("rgb.pack", "z_depth.pack", "instances.pack", "normals.pack")


@dataclass
class Scratch:
    """Memory that is used again for the next clip: fresh pages cost as much as decoding into them."""

    buffers: dict[str, NDArray[Any]] = field(default_factory=dict)

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return memory of this shape; its content is whatever was in it."""
        size = int(np.prod(shape))
        held = self.buffers.get(name)
        if held is None or held.size < size or held.dtype != np.dtype(dtype):
            held = self.buffers[name] = np.empty(size, dtype)
        return held[:size].reshape(shape)


@dataclass(frozen=True)
class LoadedClip:
    """A clip ready for queries, and what was said about it.

    Attributes:
        view: What the network sees.
        header: `clip.json`.
        supervision: Kind of depth and kinds of motion, e.g. "rendered depth, static + rigid motion".
        recolouring: The colour matrix that its `video` went through, and patches still have to; None for none.
    """

    view: ClipView
    header: dict[str, Any]
    supervision: str
    recolouring: NDArray[np.float32] | None


def load_clip(
    reader: ClipReader,
    sample: Sample,
    params: ClipParams,
    *,
    video: NDArray[np.uint8] | None = None,
    scratch: Scratch | None = None,
) -> LoadedClip:
    """Read and decode one sample.

    Args:
        reader: The shard set the sample is in.
        sample: From the order.
        params: What a sample is made of.
        video: (T, S, S, 3) memory for the network's frames; None for new memory.
        scratch: Memory to use again; the result is then valid until the next call.

    Returns:
        The clip. Its `video` has the look's colours; its patches have the source's.

    Raises:
        ShardError: A member is missing or damaged.
        FormatError: A frame cannot be decoded.
    """
    scratch = scratch or Scratch()
    index = sample.clip_index
    layers = [kind for kind in _LAYERS if reader.has_member(index, kind)]
    members = reader.read_members(index, ("clip.json", "arrays.safetensors", *layers))
    header = codecs.decode_clip_header(members["clip.json"])
    stored = _Stored(members, header, np.array(sample.frames), scratch)
    arrays = stored.arrays()
    box = images.crop_box(tuple(header["size"]), sample.look, params.size)
    if video is None:
        video = np.empty((len(stored.frames), params.size, params.size, 3), np.uint8)
    if images.is_shown_as_stored(tuple(header["size"]), box, sample.look, params.size):
        frames, recolouring = stored.colours(video), None
    else:
        frames = stored.colours()
        recolouring = images.paint(frames, box, sample.look, video)
    z_depth, depth_intrinsics = stored.depth(arrays)
    view = ClipView(
        video=video,
        times=arrays["times"],
        intrinsics=images.network_intrinsics(arrays["intrinsics"], box, params.size),
        world_from_cam=arrays["world_from_cam"],
        pose_is_known=arrays["pose_is_known"],
        aspect_ratio=box.width / box.height,
        z_depth=z_depth,
        depth_intrinsics=depth_intrinsics,
        depth_kind=header.get("z_depth", {}).get("kind") or "pseudo",
        instances=stored.labels(arrays, z_depth, depth_intrinsics),
        normals_world=stored.normals(arrays, z_depth, depth_intrinsics),
        patch_frames=frames,
        patch_intrinsics=arrays["intrinsics"],
        motion=_motion(arrays),
        motion_index=arrays["motion_index"],
        boundary_depth=_of_frames(arrays["boundary_depth"], stored.frames),
        boundary_motion=_of_frames(arrays["boundary_motion"], stored.frames),
    )
    kinds = arrays["instance_motion"].tolist()
    supervision = supervision_name(header.get("z_depth", {}).get("kind"), kinds)
    return LoadedClip(view, header, supervision, recolouring)


#: Arrays of `arrays.safetensors` with one row a frame.
_PER_FRAME = (
    "times",
    "intrinsics",
    "world_from_cam",
    "pose_is_known",
    "depth_intrinsics",
    "instances_intrinsics",
    "normals_intrinsics",
    "motion_index",
)


@dataclass
class _Stored:
    """The members of one clip and which of its frames are wanted."""

    members: dict[str, memoryview]
    header: dict[str, Any]
    frames: NDArray[np.int64]
    scratch: Scratch

    def arrays(self) -> dict[str, NDArray[Any]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(bytes(self.members["arrays.safetensors"]))
            return {name: a[self.frames] if name in _PER_FRAME else a for name, a in arrays.items()}
        except (SafetensorError, IndexError) as error:
            raise ShardError("Arrays cannot be read", where=self.header["key"], found=error) from error

    def blobs(self, kind: str) -> list[memoryview]:
        blobs = codecs.unpack(self.members[kind])
        if len(blobs) <= self.frames[-1]:
            raise ShardError(
                "Pack is shorter than the index says",
                where=f"{self.header['key']}.{kind}",
                expected=f"more than {self.frames[-1]} frames",
                found=len(blobs),
            )
        return [blobs[t] for t in self.frames]

    def colours(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Frames, decoded into `out` or into memory that is used again."""
        width, height = self.header["size"]
        if out is None:
            out = self.scratch.array("rgb", (len(self.frames), height, width, 3), "uint8")
        for t, blob, frame in zip(self.frames, self.blobs("rgb.pack"), out, strict=True):
            images.decode_frame(blob, frame, f"{self.header['key']}.rgb.pack, frame {t}")
        return out

    def depth(self, arrays: dict[str, NDArray[Any]]) -> tuple[Any, Float]:
        """Depth, still in its codes, and its intrinsics."""
        count, header = len(self.frames), self.header
        if "z_depth.pack" not in self.members:
            unknown = np.full((count, *_NO_DEPTH_SIZE[::-1]), np.nan, np.float32)
            return unknown, resize_intrinsics(arrays["intrinsics"], tuple(header["size"]), _NO_DEPTH_SIZE)
        codes = self._decoded("z_depth", codecs.decode_depth_codes, codecs.depth_dtype(header))
        if header["z_depth"]["codec"] == "float32":
            return codes, arrays["depth_intrinsics"]
        raster = CodedRaster(codes, lambda some: codecs.depth_from_codes(some, header))
        return raster, arrays["depth_intrinsics"]

    def labels(self, arrays: dict[str, NDArray[Any]], depth: Any, grid: Float) -> NDArray[Any] | None:
        """Labels on the depth grid."""
        if "instances.pack" not in self.members:
            return None
        frames = self._decoded("instances", codecs.decode_instances, codecs.instances_dtype(self.header))
        own = arrays.get("instances_intrinsics")
        return frames if own is None else _on_grid(frames, own, grid, depth.shape[1:])

    def normals(self, arrays: dict[str, NDArray[Any]], depth: Any, grid: Float) -> Any:
        """Normals on the depth grid, still in their codes."""
        if "normals.pack" not in self.members:
            return None
        differences = self._decoded("normals", codecs.decode_normal_differences, "uint16", 2)
        own = arrays.get("normals_intrinsics")
        if own is None:
            return DifferenceRaster(differences, codecs.normals_from_codes, (3,))
        codes = _on_grid(codecs.sum_differences(differences), own, grid, depth.shape[1:])
        return CodedRaster(np.ascontiguousarray(codes.swapaxes(0, 1)), codecs.normals_from_codes, (3,))

    def _decoded(self, layer: str, decode: Callable[..., Any], dtype: Any, *planes: int) -> NDArray[Any]:
        """Decode the chosen frames of a layer, (T, ..., H, W), side by side into memory that is used again."""
        width, height = self.header[layer]["size"]
        out = self.scratch.array(layer, (len(self.frames), *planes, height, width), dtype)
        for blob, frame in zip(self.blobs(f"{layer}.pack"), out, strict=True):
            decode(blob, self.header, frame)
        return out


def _on_grid(frames: NDArray[Any], own: Float, grid: Float, shape: tuple[int, ...]) -> NDArray[Any]:
    """Bring (T, ..., H, W) rasters to the depth grid: each pixel takes the sample its centre falls on."""
    out = []
    for frame, own_intrinsics, intrinsics in zip(frames, own, grid, strict=True):
        height, width = frame.shape[-2:]
        own_from_grid = own_intrinsics @ np.linalg.inv(intrinsics)
        centres = homography_points(own_from_grid, pixel_centres((shape[1], shape[0])))
        col, row = np.moveaxis(np.floor(centres).astype(np.int64), -1, 0)
        out.append(frame[..., np.clip(row, 0, height - 1), np.clip(col, 0, width - 1)])
    return np.stack(out)


def _of_frames(rows: NDArray[Any], frames: NDArray[np.int64]) -> NDArray[Any]:
    """Keep the boundary rows (t, row, column) of the chosen frames and count t from the first of them."""
    last = max(int(frames[-1]), int(rows[:, 0].max(initial=0)))
    if len(frames) == last + 1:
        return rows
    place = np.full(last + 1, -1, rows.dtype)
    place[frames] = np.arange(len(frames))
    t = place[rows[:, 0]]
    kept = np.flatnonzero(t >= 0)
    out = rows[kept]
    out[:, 0] = t[kept]
    return out


def _motion(arrays: dict[str, NDArray[Any]]) -> MotionRecord:
    return MotionRecord(
        times=arrays["motion_times"],
        instance_ids=arrays["instance_ids"],
        instance_names=(),
        instance_motion=arrays["instance_motion"],
        world_from_instance=arrays["world_from_instance"],
        points_world=arrays.get("points_world"),
        point_instance=arrays.get("point_instance"),
    )
