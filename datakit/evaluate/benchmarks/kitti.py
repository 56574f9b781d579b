"""KITTI depth: 16-bit PNG / 256 metres, 0 unknown, the first 110 frames of image_02 of the validation drives."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from datakit.errors import LayoutError, UsageError

from .clip import Benchmark, BenchmarkClip, Entry, ReadOptions
from .files import images_in, inside, read_depth_png, read_rgb
from .lists import choose, evaluation_lists

_MAX_FRAMES = 110
_PER_METRE = 256.0
#: Cameras of the raw recordings run at 10 a second.
_FPS = 10.0
#: Where MonST3R's preparation puts what it gathers (prepare_kitti.py), and the names of its folders.
_GATHERED = (Path("depth_selection/val_selection_cropped"), Path("val_selection_cropped"), Path("."))
_DEPTH, _IMAGES = "groundtruth_depth_gathered", "image_gathered"


def read_kitti(root: Path, options: ReadOptions) -> Benchmark:
    """List the drives of a KITTI depth folder.

    Args:
        root: Holds `groundtruth_depth_gathered` (itself, or below `depth_selection/val_selection_cropped`), as
            MonST3R gathers it; or KITTI's own `val/<drive>/proj_depth/groundtruth/image_02`, with
            `raw/<drive>/image_02/data` beside it for colour.
        options: `clip_list` is "val"; None takes the drives that are there.

    Raises:
        LayoutError: Neither is there.
        UsageError: No such list.
    """
    lists = evaluation_lists()["kitti"]
    if options.clip_list is not None and options.clip_list not in lists:
        raise UsageError("No such list of KITTI", expected=", ".join(lists), found=options.clip_list)
    folders = _gathered(root) or _native(root)
    if not folders:
        raise LayoutError(
            "Not a KITTI depth folder",
            where=root,
            expected=f"{_DEPTH}/<drive>_02/*.png or val/<drive>/proj_depth/groundtruth/image_02/*.png",
        )
    asked = options.names or (lists[options.clip_list] if options.clip_list else None)
    names, missing = choose(asked, folders, "kitti")
    entries = []
    for name in names:
        depth, images = folders[name]
        files = tuple(images_in(depth, (".png",))[:_MAX_FRAMES])
        entries.append(Entry(f"kitti/{name}", "kitti", files, partial(_load, name, files, images)))
    return Benchmark(
        "kitti", tuple(entries), missing, {"frames": f"first {_MAX_FRAMES}", "camera": "image_02"}
    )


def _gathered(root: Path) -> dict[str, tuple[Path, Path]]:
    for base in _GATHERED:
        if (root / base / _DEPTH).is_dir():
            return {
                path.name.removesuffix("_02"): (path, root / base / _IMAGES / path.name)
                for path in sorted((root / base / _DEPTH).iterdir())
                if path.is_dir()
            }
    return {}


def _native(root: Path) -> dict[str, tuple[Path, Path]]:
    return {
        path.parents[2].name: (path, root / "raw" / path.parents[2].name / "image_02" / "data")
        for path in sorted((root / "val").glob("*/proj_depth/groundtruth/image_02"))
    }


def _load(name: str, files: tuple[Path, ...], images: Path) -> BenchmarkClip:
    first = read_depth_png(files[0], _PER_METRE)
    has_images = images.is_dir()
    return BenchmarkClip(
        name=f"kitti/{name}",
        source="kitti",
        num_frames=len(files),
        size=(first.shape[1], first.shape[0]),
        # Paired by name: the depth of a drive begins at its fifth frame.
        rgb=(lambda t: read_rgb(inside(images, files[t].name))) if has_images else None,
        times_s=np.array([_number(path) for path in files]) / _FPS,
        frame_names=tuple(path.stem for path in files),
        z_depth=lambda t: read_depth_png(files[t], _PER_METRE),
    )


def _number(path: Path) -> float:
    digits = "".join(c for c in path.stem if c.isdigit())
    return float(digits or 0)
