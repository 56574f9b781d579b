"""A view of a scene as a shard holds it: pinhole, at the stored resolution."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.scene import View, encode_png

from .codecs import encode_jpeg
from .params import PackParams

Float = NDArray[np.float64]

#: Depth and labels of a clip stay in memory between the passes over them up to this many bytes.
_KEEP_BYTES = 1 << 29


class StoredView:
    """Reads frames of a view the way they are stored.

    Colour is scaled; other layers are thinned by a whole step, so that every kept sample stays where it was and
    only the grid's intrinsics change. Where the view has a lens model its frames are resampled to the pinhole
    camera of the same intrinsics: colour linearly, everything else by the nearest sample.

    Attributes:
        size: (W, H) of stored colour.
        intrinsics: (T, 3, 3) of stored colour.
        is_rectified: Frames were resampled here to undo a lens.
        is_verbatim: The source's image bytes are passed through.
        z_depth: Frame -> (H, W) float32, NaN unknown; the view must have depth.
        instances: Frame -> (H, W) uint32 labels; the view must have them.
    """

    def __init__(self, view: View, params: PackParams) -> None:
        self._view = view
        self._params = params
        self.size = _scaled(view.size, params.max_side)
        self.intrinsics: Float = g.resize_intrinsics(view.intrinsics, view.size, self.size)
        self.is_rectified = view.record["camera_model"] != "pinhole"
        is_encoded = view.record["layers"]["rgb"]["codec"] != "array"
        self.is_verbatim = (
            params.rgb == "native" and self.size == view.size and not self.is_rectified and is_encoded
        )
        width, height = view.depth_size
        is_small = 8 * width * height * params.clip_frames <= _KEEP_BYTES
        num_kept = params.clip_frames if is_small else 2
        self.z_depth = lru_cache(num_kept)(self._z_depth)
        self.instances = lru_cache(num_kept)(self._instances)

    def has(self, layer: str) -> bool:
        """Say whether the view has this layer."""
        return layer in self._view.layers

    def layer_size(self, layer: str) -> tuple[int, int]:
        """(W, H) of a stored raster layer other than colour."""
        width, height = self._view.layer_size(layer)
        step, first = self._thinning(layer)
        return len(range(first, width, step)), len(range(first, height, step))

    def layer_intrinsics(self, layer: str) -> Float:
        """(T, 3, 3) of a stored raster layer other than colour."""
        return thinned_intrinsics(self._view.layer_intrinsics(layer), *self._thinning(layer))

    def rgb(self, t: int) -> bytes:
        """Image bytes of frame t."""
        if self.is_verbatim:
            return self._view.encoded("rgb", t)
        rgb = self._view.rgb(t)
        if self.is_rectified:
            rgb = self._rectify_colour(rgb, t)
        if self.size != self._view.size:
            rgb = np.asarray(cv2.resize(rgb, self.size, interpolation=cv2.INTER_AREA), np.uint8)
        elif self._params.rgb == "native" and not self.is_rectified:
            return encode_png(rgb)  # an uncompressed source loses nothing
        return encode_jpeg(rgb, self._params.jpeg_quality)

    def _z_depth(self, t: int) -> NDArray[np.float32]:
        return self._raster("z_depth", self._view.z_depth(t), t, np.nan)

    def _instances(self, t: int) -> NDArray[np.uint32]:
        return self._raster("instances", self._view.instances(t), t, 0)

    def normals(self, t: int) -> NDArray[np.float32]:
        """(H, W, 3) world normals of frame t; the view must have them."""
        return self._raster("normals_world", self._view.normals(t), t, np.nan)

    def _thinning(self, layer: str) -> tuple[int, int]:
        step = thin_step(self._view.layer_size(layer), self._params.max_side)
        return step, (step - 1) // 2

    def _raster(self, layer: str, full: Any, t: int, outside: float) -> Any:
        if self.is_rectified:
            full = self._rectify_nearest(
                full, self._lens_map(self._view.layer_intrinsics(layer)[t], layer), outside
            )
        step, first = self._thinning(layer)
        return full[first::step, first::step]

    def _lens_map(self, intrinsics: Float, layer: str) -> Float:
        """(H, W, 2) where each pinhole pixel of a layer's grid lies in the distorted image."""
        return _lens_map(
            intrinsics.tobytes(),
            self._view.layer_size(layer),
            self._view.record["camera_model"],
            tuple(self._view.record["distortion"]),
        )

    def _rectify_colour(self, rgb: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        # OpenCV has its origin at the centre of the first pixel.
        u, v = np.moveaxis((self._lens_map(self._view.intrinsics[t], "rgb") - 0.5).astype(np.float32), -1, 0)
        return np.asarray(cv2.remap(rgb, u, v, cv2.INTER_LINEAR), np.uint8)

    @staticmethod
    def _rectify_nearest(full: NDArray[Any], lens_map: Float, outside: float) -> NDArray[Any]:
        col, row = np.moveaxis(np.floor(np.nan_to_num(lens_map, nan=-1.0)).astype(np.int64), -1, 0)
        is_inside = (row >= 0) & (row < full.shape[0]) & (col >= 0) & (col < full.shape[1])
        out = full[np.where(is_inside, row, 0), np.where(is_inside, col, 0)]
        out[~is_inside] = outside
        return out


@lru_cache(8)
def _lens_map(
    intrinsics: bytes, size: tuple[int, int], camera_model: str, distortion: tuple[float, ...]
) -> Float:
    camera = np.frombuffer(intrinsics).reshape(3, 3)
    rays = g.camera_rays(g.pixel_centres(size), camera)
    uv, _ = g.project_distorted(rays.reshape(-1, 3), camera, camera_model, distortion)
    return uv.reshape(size[1], size[0], 2)


def thin_step(size: tuple[int, int], max_side: int | None) -> int:
    """Give the largest whole step that keeps the longer side at least `max_side`."""
    return 1 if max_side is None else max(1, max(size) // max_side)


def thinned_intrinsics(intrinsics: Float, step: int, first: int) -> Float:
    """K of the grid made of the samples first, first + step, ... along both axes; no sample moves.

    >>> thinned_intrinsics(np.array([[100, 0, 50], [0, 100, 50], [0, 0, 1.0]]), 2, 0)[0].tolist()
    [50.0, 0.0, 25.25]
    """
    out = intrinsics.copy()
    out[..., :2, :] /= step
    out[..., :2, 2] += 0.5 - (first + 0.5) / step
    return out


def _scaled(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    if max_side is None or max(size) <= max_side:
        return size
    width, height = (max(1, round(side * max_side / max(size))) for side in size)
    return width, height
