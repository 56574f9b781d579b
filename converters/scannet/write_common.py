"""What a depth camera would have recorded of an analytic world, in ScanNet's own terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.motion import MotionKind
from datakit.worlds import World

from .card import VIEW

Float = NDArray[np.float64]
Size = tuple[int, int]

#: The usual scan: colour 1296x968, depth 640x480, and where the two principal points are from each other.
_COLOUR_SIZE, _DEPTH_SIZE = np.array([1296, 968]), np.array([640, 480])
_COLOUR_OFFSET_PX = 0.25
DEPTH_SHIFT = 1000.0
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Shot:
    """One frame: colour as a 4:2:0 JPEG, 16-bit depth codes, instance ids at colour size, camera_to_world."""

    rgb: NDArray[np.uint8]
    jpeg: bytes
    depth: NDArray[np.uint16]
    instances: NDArray[np.uint8]
    camera_to_world: Float


@dataclass(frozen=True)
class Scan:
    """A recorded world.

    Attributes:
        name: scene%04d_00.
        intrinsic_color: (4, 4), integer pixel centres; likewise `intrinsic_depth`.
        intrinsic_depth: (4, 4).
        colour_size: (W, H).
        depth_size: (W, H).
        world: The world; its frames are rendered by `shots`.
    """

    name: str
    intrinsic_color: Float
    intrinsic_depth: Float
    colour_size: Size
    depth_size: Size
    world: World

    def shots(self) -> Iterator[Shot]:
        """Render frame by frame; colour through one K, depth through the other, from one pose."""
        view = self.world.views[VIEW]
        depth_k = g.corner_from_centre_intrinsics(self.intrinsic_depth[:3, :3])
        for t in range(self.world.num_frames):
            colour = self.world.render(t)
            z_depth = self.world.render(t, intrinsics=depth_k, size=self.depth_size).z_depth
            yield Shot(
                colour.rgb,
                simplejpeg.encode_jpeg(colour.rgb, quality=_JPEG_QUALITY, colorsubsampling="420"),
                depth_codes(z_depth),
                colour.instances.astype(np.uint8),
                view.world_from_cam[t],
            )


def depth_codes(z_depth: Float) -> NDArray[np.uint16]:
    """Round metres to millimetres; 0 where unknown or beyond what 16 bits hold."""
    codes = np.round(np.nan_to_num(z_depth, nan=0.0) * DEPTH_SHIFT)
    return np.where(codes <= 65535, codes, 0).astype(np.uint16)


def scans(worlds: Iterable[World]) -> Iterator[Scan]:
    """Number worlds as scans.

    Raises:
        ConventionError: A world moves, has several cameras, or intrinsics that change.
    """
    for number, world in enumerate(worlds):
        _check_expressible(world)
        view = world.views[VIEW]
        size = view.size
        depth_size = depth_grid(size)
        yield Scan(
            f"scene{number:04d}_00",
            _matrix4(view.intrinsics[0]),
            _matrix4(depth_intrinsics(view.intrinsics[0], size, depth_size)),
            size,
            depth_size,
            world,
        )


def depth_grid(colour_size: Size) -> Size:
    """Scale the usual depth size to another colour size."""
    width, height = np.round(np.array(colour_size) * _DEPTH_SIZE / _COLOUR_SIZE).astype(int)
    return max(1, int(width)), max(1, int(height))


def depth_intrinsics(colour_k: Float, colour_size: Size, depth_size: Size) -> Float:
    """Relate the depth grid to the colour grid as the usual scan does, which is by no resize.

    The scale is that of the widths, for both axes; principal points differ by a quarter of a colour pixel; and what
    the depth grid is taller than colour lies half above and half below.
    """
    scale = depth_size[0] / colour_size[0]
    out = colour_k.copy()
    out[:2] *= scale
    spare = np.array(depth_size) - scale * np.array(colour_size)
    out[:2, 2] = scale * (colour_k[:2, 2] - _COLOUR_OFFSET_PX) + spare / 2
    return out


def _matrix4(corner_k: Float) -> Float:
    out = np.eye(4)
    out[:3, :3] = g.centre_from_corner_intrinsics(corner_k)
    return out


def _check_expressible(world: World) -> None:
    if list(world.views) != [VIEW]:
        raise ConventionError(
            "A scan has one camera.", where=world.name, expected=[VIEW], found=[*world.views]
        )
    moving = [item.id for item in world.instances if item.motion != MotionKind.STATIC]
    if moving:
        raise ConventionError(
            "ScanNet can only hold worlds in which nothing moves.",
            where=world.name,
            expected="MotionKind STATIC",
            found=f"instances {moving}",
            mend="--motion static",
        )
    intrinsics = world.views[VIEW].intrinsics
    if (intrinsics != intrinsics[0]).any():
        raise ConventionError("A scan has one K.", where=f"{world.name}: intrinsics", expected="no zoom")


def calibration_text(scan: Scan, num_frames: int) -> str:
    """Write `<id>.txt` as the release has it: CRLF, and a raw calibration that must not be used on released depth."""
    (width, height), (depth_width, depth_height) = scan.colour_size, scan.depth_size
    raw = 571.623718 * depth_width / 640
    pairs = {
        "axisAlignment": "0.945519 0.325568 0.000000 -5.384390 -0.325568 0.945519 0.000000 -2.871780 "
        "0.000000 0.000000 1.000000 -0.064350 0.000000 0.000000 0.000000 1.000000 ",
        "colorHeight": height,
        "colorToDepthExtrinsics": "0.999977 0.004401 0.005230 -0.037931 -0.004314 0.999855 -0.016432 -0.003773 "
        "-0.005302 0.016409 0.999851 -0.021688 0.000000 0.000000 0.000000 1.000000 ",
        "colorWidth": width,
        "depthHeight": depth_height,
        "depthWidth": depth_width,
        "fx_color": f"{scan.intrinsic_color[0, 0]:f}",
        "fx_depth": f"{raw:f}",
        "fy_color": f"{scan.intrinsic_color[1, 1]:f}",
        "fy_depth": f"{raw:f}",
        "mx_color": f"{scan.intrinsic_color[0, 2]:f}",
        "mx_depth": f"{depth_width / 2 - 0.5:f}",
        "my_color": f"{scan.intrinsic_color[1, 2]:f}",
        "my_depth": f"{depth_height / 2 - 0.5:f}",
        # One more than there are, as in nine scans of the release (ScanNet issue 59).
        "numColorFrames": num_frames + 1,
        "numDepthFrames": num_frames,
        "numIMUmeasurements": 2 * num_frames,
        "sceneType": "Misc.",
    }
    return "".join(f"{key} = {value}\r\n" for key, value in pairs.items())
