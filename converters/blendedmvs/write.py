"""Write worlds as BlendedMVS stores scenes: from the format's description, not from the reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.motion import MotionKind
from datakit.worlds import World

from .card import VIEW

Float = NDArray[np.float64]

_JPEG_QUALITY = 95
#: High-res over low-res: 2048 / 768.
_HIGH_RES = 8 / 3


@dataclass(frozen=True)
class Release:
    """Scene ids to give to the first worlds (the second is official validation where one is), and image scale."""

    ids: tuple[str, str]
    validation: tuple[str, ...] = ()
    scale: float = 1.0


RELEASES = {
    "low-res": Release(
        ("5bff3c5cfe0ea555e6bcbf3a", "5b7a3890fc8fcf6781e2593a"), ("5b7a3890fc8fcf6781e2593a",)
    ),
    "high-res": Release(
        ("5bff3c5cfe0ea555e6bcbf3a", "5b7a3890fc8fcf6781e2593a"), ("5b7a3890fc8fcf6781e2593a",), _HIGH_RES
    ),
    "plus": Release(("000000000000000000000005", "5856ae8b804be10585241bae")),
    "plus-plus": Release(("587e5cb52366dd5d06e4486e", "00000000000000000000001b")),
}


def write_release(
    worlds: Iterable[World], out: Path, form: str, empty_maps: frozenset[int] = frozenset()
) -> None:
    """Write worlds as the scenes of a release, with the list files that MVSNet opens from the data root.

    Args:
        worlds: One-camera worlds in which nothing moves.
        out: Folder to fill.
        form: A key of RELEASES.
        empty_maps: Frames whose depth map is empty, as where the mesh is not in the picture.

    Raises:
        ConventionError: The world holds what BlendedMVS cannot express.
    """
    release, ids = RELEASES[form], []
    out.mkdir(parents=True, exist_ok=True)
    for number, world in enumerate(worlds):
        ids.append(release.ids[number] if number < len(release.ids) else f"{0x100 + number:024x}")
        write_scene(world, out / ids[-1], release.scale, empty_maps)
    training = [name for name in ids if name not in release.validation]
    (out / "BlendedMVS_training.txt").write_bytes("".join(f"{name}\n" for name in training).encode())
    # The official validation list has CRLF line ends, the other lists LF.
    (out / "validation_list.txt").write_bytes("".join(f"{name}\r\n" for name in release.validation).encode())


def photo_number(t: int) -> int:
    """Number photo t; photos that could not be registered leave gaps."""
    return t + (t >= 3) + 3 * (t >= 5)


def write_scene(world: World, folder: Path, scale: float, empty_maps: frozenset[int]) -> None:
    """Write one scene folder."""
    _check_expressible(world)
    for name in ("blended_images", "cams", "rendered_depth_maps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    view = world.views[VIEW]
    size = (round(view.size[0] * scale), round(view.size[1] * scale))
    names = [f"{photo_number(t):08d}" for t in range(world.num_frames)]
    for t, name in enumerate(names):
        k = g.resize_intrinsics(view.intrinsics[t], view.size, size)
        frame = world.render(t, intrinsics=k, size=size)
        z = stored_depth(frame.z_depth, t, t in empty_maps)
        masked = np.where((z > 0)[..., None], frame.rgb, 0).astype(np.uint8)
        for ending, rgb in ((".jpg", frame.rgb), ("_masked.jpg", masked)):
            data = simplejpeg.encode_jpeg(rgb, quality=_JPEG_QUALITY, colorsubsampling="420")
            (folder / "blended_images" / (name + ending)).write_bytes(data)
        (folder / "rendered_depth_maps" / f"{name}.pfm").write_bytes(pfm_bytes(z, big_endian=t == 1))
        text = cam_text(g.invert_rigid(view.world_from_cam[t]), k, frame.z_depth, t)
        (folder / "cams" / f"{name}_cam.txt").write_text(text)
    (folder / "cams" / "pair.txt").write_text(pair_text(world.num_frames))


def _check_expressible(world: World) -> None:
    if list(world.views) != [VIEW]:
        raise ConventionError(
            "A scene has one camera.", where=world.name, expected=[VIEW], found=[*world.views]
        )
    moving = [item.id for item in world.instances if item.motion != MotionKind.STATIC]
    if moving:
        raise ConventionError(
            "BlendedMVS can only hold worlds in which nothing moves.",
            where=world.name,
            expected="MotionKind STATIC",
            found=f"instances {moving}",
            mend="--motion static",
        )


def stored_depth(z_depth: Float, t: int, is_empty: bool) -> NDArray[np.float32]:
    """Return what the renderer would store: 0 without surface; photo 0 has a NaN, two infinities and a hole."""
    z = np.nan_to_num(z_depth, nan=0.0).astype(np.float32)
    if t == 0:
        z[0, :3] = np.nan, np.inf, -np.inf
        z[1, 0] = 0
    return np.zeros_like(z) if is_empty else z


def pfm_bytes(z: NDArray[np.float32], big_endian: bool) -> bytes:
    """Encode a PFM: bottom row first, byte order by the sign of the scale."""
    header = f"Pf\n{z.shape[1]} {z.shape[0]}\n{'1.000000' if big_endian else '-1.000000'}\n".encode()
    return header + z[::-1].astype(">f4" if big_endian else "<f4").tobytes()


def cam_text(cam_from_world: Float, intrinsics: Float, z_depth: Float, t: int) -> str:
    """Write a camera file; the files of a scene differ in how much they say of the depth range.

    The range is the 1 % to 99 % quantile as in MVSNet's colmap2mvsnet.py:356-357, so that real depth lies outside.
    """
    number = (lambda v: f"{v:.17e}") if t == 2 else repr
    known = z_depth[np.isfinite(z_depth)]
    low, high = (float(q) for q in np.quantile(known, (0.01, 0.99))) if known.size else (0.0, 0.0)
    if t == 4:
        low = 0.0
    num = 128
    interval = (high - low) / num
    words = [f"{low:.6f}", f"{interval:.6f}", f"{num}.000000" if t == 1 else str(num), f"{high:.6f}"]
    depth = " ".join(words[: {0: 2, 1: 3}.get(t, 4)])
    return (
        "extrinsic\n"
        + _rows(cam_from_world, number)
        + "\nintrinsic\n"
        + _rows(intrinsics, number)
        + f"\n{depth}\n"
    )


def _rows(matrix: Float, number: object) -> str:
    # Each row ends in a blank, as the authors' writers do.
    return "".join("".join(f"{number(float(v))} " for v in row) + "\n" for row in matrix)  # type: ignore[operator]


def pair_text(num_frames: int) -> str:
    """Write pair.txt: ten sources where there are ten, three for photo 2, none for photo 3."""
    return f"{num_frames}\n" + "".join(_pair_rows(num_frames))


def _pair_rows(num_frames: int) -> Iterator[str]:
    for t in range(num_frames):
        sources = sorted((s for s in range(num_frames) if s != t), key=lambda s: abs(s - t))
        sources = sources[: {2: 3, 3: 0}.get(t, 10)]
        words = "".join(f"{photo_number(s)} {100 / (1 + abs(s - t)):f} " for s in sources)
        yield f"{photo_number(t)}\n{len(sources)} {words}\n"
