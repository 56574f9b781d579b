"""Native readers of benchmarks: each lists the clips of a folder and opens them one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datakit.errors import LayoutError, UsageError

from .clip import Benchmark, BenchmarkClip, Entry, ReadOptions, TruthTracks
from .kitti import read_kitti
from .lists import evaluation_lists, read_list
from .scannet import read_scannet
from .scenes import read_scenes
from .sintel import read_sintel
from .tapvid2d import read_tapvid2d
from .tapvid3d import read_tapvid3d
from .tum import read_bonn, read_tum

__all__ = [
    "DATASETS",
    "Benchmark",
    "BenchmarkClip",
    "Entry",
    "ReadOptions",
    "TruthTracks",
    "evaluation_lists",
    "open_benchmark",
    "read_list",
]

#: Name -> reader.
DATASETS: dict[str, Callable[[Path, ReadOptions], Benchmark]] = {
    "sintel": read_sintel,
    "kitti": read_kitti,
    "bonn": read_bonn,
    "scannet": read_scannet,
    "tum": read_tum,
    "tapvid3d": read_tapvid3d,
    "tapvid2d": read_tapvid2d,
    "scenes": read_scenes,
}
#: What tells a dataset's folder from others', in the order tried.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("scenes", ("*.h5",)),
    ("tapvid2d", ("*.pkl",)),
    ("sintel", ("final", "training/final")),
    (
        "kitti",
        (
            "groundtruth_depth_gathered",
            "*/groundtruth_depth_gathered",
            "*/*/groundtruth_depth_gathered",
            "val/*/proj_depth",
        ),
    ),
    ("bonn", ("rgbd_bonn_*/rgb", "rgbd_bonn_dataset/rgbd_bonn_*/rgb")),
    ("tum", ("rgb.txt", "*/rgb.txt")),
    ("scannet", ("*/color_90", "scene*/color")),
    ("tapvid3d", ("*.npz", "*/*.npz")),
)


def open_benchmark(root: str | Path, dataset: str = "auto", options: ReadOptions | None = None) -> Benchmark:
    """List the clips of a benchmark's folder.

    Args:
        root: The folder (or file, of TAP-Vid and scenes).
        dataset: One of `DATASETS`, or "auto" to look.
        options: How it is read.

    Returns:
        The clips; nothing but names was read.

    Raises:
        LayoutError: No such folder, or not of that dataset.
        UsageError: No such dataset.
    """
    path = Path(root)
    if not path.exists():
        raise LayoutError("No such file or folder", where=path, expected="a benchmark's data")
    name = _recognise(path) if dataset == "auto" else dataset
    if name not in DATASETS:
        raise UsageError("No such dataset", expected=", ".join(DATASETS), found=name)
    return DATASETS[name](path, options or ReadOptions())


def _recognise(path: Path) -> str:
    if path.is_file():
        by_suffix = {".h5": "scenes", ".pkl": "tapvid2d"}
        if path.suffix in by_suffix:
            return by_suffix[path.suffix]
    for name, signs in _SIGNS if path.is_dir() else ():
        if any(next(path.glob(sign), None) is not None for sign in signs):
            return name
    raise LayoutError(
        "No benchmark is recognised here",
        where=path,
        expected=", ".join(DATASETS),
        mend="name it with --dataset, or see docs/evaluate.md for each one's layout",
    )
