"""Frames per CPU-second and peak memory of conversion, for short and long scenes, beside a plain script.

    python benchmarks/convert.py                      # about two minutes; most of it makes the native files
    python benchmarks/convert.py --frames 24 48 --size 128

Every run is a process of its own: CPU time (user + system) and peak memory are what the system says about it, with
the start of Python and of the libraries in it. The plain script does what such scripts usually do with each frame:
decode every layer, bring it to its unit, and save it again as PNG or compressed npz. It stores the same layers, but
no contract, checksums, hashes of the sources, or motion. Read the ratios, not the times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What one process used."""

    cpu_s: float
    peak_mib: float


def measure(name: str, *args: object) -> Usage:
    """Run one of `CHILDREN` in a process of its own."""
    command = [sys.executable, __file__, "--child", name, *map(str, args)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed")
    # Linux counts KiB, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**20)


# --- what is measured ---------------------------------------------------------------------------------------------


def child_native(raw: str, frames: str, size: str) -> None:
    """Write one clip of the worker form."""
    from datakit.convert import load_converter
    from datakit.worlds import random_world

    Path(raw).mkdir(parents=True)
    world = random_world(0, num_frames=int(frames), size=(int(size), int(size)), motion="rigid")
    load_converter("kubric").write_native(iter([world]), Path(raw), "worker")


def child_start() -> None:
    """Start and import, nothing else."""
    import datakit.convert.engine  # noqa: F401
    from datakit.convert import load_converter

    load_converter("kubric")


def child_datakit(raw: str, out: str) -> None:
    """Convert with the engine, in this process."""
    from datakit.convert import run

    report = run("kubric", raw, out, workers=1, progress=False)
    sys.exit(report.exit_code)


def child_plain_start() -> None:
    """Start and import what the plain script needs."""
    import cv2  # noqa: F401
    import numpy  # noqa: F401


def child_plain(raw: str, out: str) -> None:
    """Convert like a script: frame by frame, decode and encode again."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    for clip in sorted(path.parent for path in Path(raw).rglob("metadata.json")):
        target = Path(out) / clip.name
        target.mkdir(parents=True)
        meta = json.loads((clip / "metadata.json").read_text())
        ranges = json.loads((clip / "data_ranges.json").read_text())
        width, height = meta["metadata"]["resolution"]
        focal = meta["camera"]["focal_length"] / meta["camera"]["sensor_width"] * width
        rows, columns = np.mgrid[:height, :width] + 0.5
        ray = np.sqrt(1 + ((columns - width / 2) ** 2 + (rows - height / 2) ** 2) / focal**2)

        def load(layer: str, t: int, suffix: str = "png", clip: Path = clip) -> np.ndarray:
            return cv2.imread(str(clip / f"{layer}_{t:05d}.{suffix}"), cv2.IMREAD_UNCHANGED)

        for t in range(meta["metadata"]["num_frames"]):
            cv2.imwrite(str(target / f"rgb_{t:05d}.png"), load("rgba", t)[..., :3])
            z_depth = load("depth", t, "tiff").reshape(height, width) / ray
            np.savez_compressed(target / f"depth_{t:05d}.npz", z_depth.astype(np.float32))
            cv2.imwrite(str(target / f"segmentation_{t:05d}.png"), load("segmentation", t))
            for layer in ("forward_flow", "backward_flow"):
                low, high = ranges[layer]["min"], ranges[layer]["max"]
                flow = load(layer, t)[..., :0:-1] / 65535 * (high - low) + low
                np.savez_compressed(target / f"{layer}_{t:05d}.npz", flow.astype(np.float32))
            normal = load("normal", t)[..., ::-1] / 65535 * 2 - 1
            np.savez_compressed(target / f"normal_{t:05d}.npz", normal.astype(np.float32))
            coords = load("object_coordinates", t)[..., ::-1] / 65535
            np.savez_compressed(target / f"object_coordinates_{t:05d}.npz", coords.astype(np.float32))


CHILDREN: dict[str, Callable[..., None]] = {
    "native": child_native,
    "start": child_start,
    "datakit": child_datakit,
    "plain_start": child_plain_start,
    "plain": child_plain,
}


# --- the run ------------------------------------------------------------------------------------------------------


def folder_mib(folder: Path) -> float:
    """Size of everything below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=(24, 240), metavar=("SHORT", "LONG"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="best of so many")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child[0]](*options.child[1:])
        return
    with tempfile.TemporaryDirectory() as folder:
        used, mib = run_all(Path(folder), options.frames, options.size, options.rounds)
    print_table(used, mib, options.frames)


def run_all(
    folder: Path, frames: tuple[int, int], size: int, rounds: int
) -> tuple[dict[tuple[str, int], Usage], dict[str, float]]:
    """Measure both programs on both lengths, interleaved; keep the round with the least CPU time.

    Returns:
        (program, frames) -> usage, with 0 frames for the bare start; and who -> MiB of the last length's files.
    """
    for count in frames:
        print(f"making {count} frames of {size} x {size}", file=sys.stderr)
        # In a process of its own, for a process starts with the peak memory of the one that started it.
        measure("native", folder / f"raw{count}", count, size)
    best: dict[tuple[str, int], Usage] = {}
    mib = {"native": folder_mib(folder / f"raw{frames[-1]}")}
    for _ in range(rounds):
        for name in ("datakit", "plain"):
            start = "plain_start" if name == "plain" else "start"
            keep_best(best, (name, 0), measure(start))
            for count in frames:
                out = folder / "out"
                keep_best(best, (name, count), measure(name, folder / f"raw{count}", out))
                mib[name] = folder_mib(out)
                shutil.rmtree(out)
    return best, mib


def keep_best(best: dict[tuple[str, int], Usage], key: tuple[str, int], usage: Usage) -> None:
    """Keep the less disturbed of two rounds."""
    if key not in best or usage.cpu_s < best[key].cpu_s:
        best[key] = usage


def print_table(
    results: dict[tuple[str, int], Usage], mib: dict[str, float], frames: tuple[int, int]
) -> None:
    """Print what was measured, and the ratios."""
    short, long = frames
    print(f"{'':<10}{'frames':>8}{'CPU s':>10}{'frames / CPU s':>17}{'peak MiB':>12}")
    for name in ("datakit", "plain"):
        for count in (0, short, long):
            used = results[name, count]
            rate = f"{count / used.cpu_s:.1f}" if count else "start only"
            print(f"{name:<10}{count:>8}{used.cpu_s:>10.2f}{rate:>17}{used.peak_mib:>12.0f}")
    ours, plain = results["datakit", long], results["plain", long]
    steady = [
        (results[name, long].cpu_s - results[name, short].cpu_s) / (long - short)
        for name in ("datakit", "plain")
    ]
    memory = ours.peak_mib / results["datakit", short].peak_mib
    print(f"\nframes per CPU-second, {long} frames, start included: {plain.cpu_s / ours.cpu_s:.2f} x plain")
    print(f"frames per CPU-second, start excluded:              {steady[1] / steady[0]:.2f} x plain")
    growth = (ours.peak_mib - results["datakit", short].peak_mib) / (long - short)
    print(
        f"peak memory, {long} frames against {short}:               {memory:.3f} x ({growth:.3f} MiB a frame,"
    )
    print(f"  where one frame has {mib['native'] / long:.3f} MiB on disk)")
    ratios = [mib[name] / mib["native"] for name in ("datakit", "plain")]
    print(f"bytes written: {ratios[0]:.2f} x native; plain: {ratios[1]:.2f} x native")


if __name__ == "__main__":
    main()
