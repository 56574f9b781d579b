"""What inference costs on the device at hand: queries a second, tracks sustained, poses, depth, dense tracking.

Weights are random: speed does not hang on them. Rates are medians on one clip. What a whole clip needs is computed from
them, as the paper's table 3 (arXiv 2512.08924) must have been: a track over a clip of T frames is T queries, and a clip
at F frames a second leaves T / F seconds, of which encoding takes its part.

    python benchmarks/infer.py                                           # tiny, a CPU, a minute
    python benchmarks/infer.py --config paper --device cuda --precision bf16 --compile
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from datakit.d4rt import D4RT, find_config
from datakit.infer.answers import ClipFrames
from datakit.infer.cameras import camera_queries, find_cameras
from datakit.infer.cost import format_seconds
from datakit.infer.dense import all_dense_tracks
from datakit.infer.grids import grid_shape
from datakit.infer.model_answers import ModelAnswers
from datakit.infer.params import InferParams
from datakit.infer.truth import TruthAnswers
from datakit.worlds import random_world

RATES = (60, 24, 10, 1)
#: Tracks over a whole video that one A100 sustains (arXiv 2512.08924, table 3).
PAPER = {60: 550, 24: 1570, 10: 3890, 1: 40180}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        config: Name of a model configuration.
        frames: Frames of the clip.
        size: (W, H) of the video.
        options: Of `ModelAnswers`.
        queries: Queries of a measurement.
        rounds: Repetitions; the median counts.
    """

    config: str
    frames: int
    size: tuple[int, int]
    options: dict[str, Any]
    queries: int
    rounds: int


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median wall time of a call, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def make_clip(case: Case) -> ClipFrames:
    """A clip of noise."""
    rng = np.random.default_rng(0)
    width, height = case.size
    rgb = rng.integers(0, 256, (case.frames, height, width, 3), np.uint8)
    return ClipFrames(rgb, np.arange(case.frames) / 24, np.arange(case.frames))


def draw(count: int, frames: int) -> tuple[Any, ...]:
    """Random queries."""
    rng = np.random.default_rng(1)
    return rng.random((count, 2)), *rng.integers(0, frames, (3, count))


def measure_rates(model: D4RT, case: Case, chunks: Sequence[int]) -> list[dict[str, Any]]:
    """Queries a second by chunk, with keys and values kept and projected anew for every chunk."""
    clip, rows = make_clip(case), []
    for chunk in chunks:
        row: dict[str, Any] = {"chunk": chunk}
        for name, kept in (("kept", True), ("not_kept", False)):
            answers = ModelAnswers(model, chunk=chunk, keep_keys_values=kept, **case.options)
            opened = answers.open(clip)
            queries = draw(max(chunk, case.queries // chunk * chunk), case.frames)
            spent = seconds(lambda o=opened, q=queries: o.ask(*q), answers.device, case.rounds)  # type: ignore[misc]
            row[name] = len(queries[0]) / spent
        rows.append(row)
    return rows


def sustained(frames: int, opening: float, rate: float) -> dict[int, int]:
    """Tracks over a whole clip that keep up with a video, by its frames a second."""
    return {fps: max(0, int((frames / fps - opening) * rate / frames)) for fps in RATES}


def dense_saving(case: Case, cells: int) -> dict[str, Any]:
    """Tracks that the occupancy grid needs on a moving synthetic world, where answers are true."""
    frames = min(case.frames, 16)
    world = random_world(0, num_frames=frames, size=(96, 64))
    clip = TruthAnswers.of_world(world).open(_black(frames, (96, 64)))
    found = all_dense_tracks(clip, InferParams(dense=True, dense_size=cells))
    return {
        "frames": frames,
        "tracks": len(found.query_frame),
        "saving": found.saving,
        "covered": found.share,
    }


def _black(frames: int, size: tuple[int, int]) -> ClipFrames:
    rgb = np.zeros((frames, size[1], size[0], 3), np.uint8)
    return ClipFrames(rgb, np.arange(frames) / 24, np.arange(frames))


def measure(case: Case, chunks: Sequence[int], depth_sizes: Sequence[int], cells: int) -> dict[str, Any]:
    """Measure everything."""
    torch.manual_seed(0)
    config = find_config(case.config)
    model = D4RT(config if case.frames <= config.num_frames else replace(config, num_frames=case.frames))
    rows = measure_rates(model, case, chunks)
    best = max(rows, key=lambda row: row["kept"])
    answers = ModelAnswers(model, chunk=best["chunk"], **case.options)
    clip = make_clip(case)
    opening = seconds(lambda: answers.open(clip), answers.device, case.rounds)
    opened, params = answers.open(clip), InferParams()
    poses = seconds(lambda: find_cameras(opened, params), answers.device, case.rounds)
    rate = best["kept"]
    depth = {}
    for size in depth_sizes:
        columns, lines = grid_shape(size, case.size)
        depth[size] = (case.frames * columns * lines, case.frames * columns * lines / rate)
    saving = dense_saving(case, cells)
    columns, lines = grid_shape(cells, case.size)
    naive = case.frames**2 * columns * lines
    return {
        "rates": rows,
        "best_chunk": best["chunk"],
        "open_s": opening,
        "pose_queries": camera_queries(params, case.frames, case.size),
        "pose_s": poses,
        "pose_fps": case.frames / (opening + poses),
        "depth": depth,
        "sustained": sustained(case.frames, opening, rate),
        "dense": saving | {"naive_s": naive / rate, "s": naive / saving["saving"] / rate},
    }


def show(found: dict[str, Any], cells: int) -> None:
    """Print the numbers."""
    print(f"\n{'chunk':>8} {'queries/s, K/V kept':>20} {'not kept':>12} {'gain':>6}")
    for row in found["rates"]:
        gain = row["kept"] / row["not_kept"]
        print(f"{row['chunk']:>8} {row['kept']:>20,.0f} {row['not_kept']:>12,.0f} {gain:>6.2f}")
    print(f"\nencoding a clip, keys and values projected: {found['open_s'] * 1000:.1f} ms")
    print(f"all below with chunks of {found['best_chunk']}, K/V kept")
    print(
        f"poses and focal lengths: {found['pose_queries']:,} queries, {found['pose_s'] * 1000:.1f} ms; "
        f"{found['pose_fps']:.0f} FPS with encoding"
    )
    for size, (count, spent) in found["depth"].items():
        print(
            f"depth of every frame, {size} cells along the longer side: {count:,} queries, {format_seconds(spent)}"
        )
    print(f"\n{'video FPS':>10} {'tracks sustained':>17} {'paper, A100':>12}")
    for fps, count in found["sustained"].items():
        print(f"{fps:>10} {count:>17,} {PAPER[fps]:>12,}")
    dense = found["dense"]
    print(
        f"\ndense tracking, {cells} cells along the longer side: {format_seconds(dense['s'])} at a saving of "
        f"{dense['saving']:.1f} (all pairs: {format_seconds(dense['naive_s'])}); the saving is that of a moving "
        f"synthetic world of {dense['frames']} frames with true answers"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--frames", type=int, help="of the clip; the configuration's unless given")
    parser.add_argument("--size", default="640x360", help="of the video")
    parser.add_argument("--chunks", default="256,1024,4096,16384")
    parser.add_argument("--queries", type=int, default=65536, help="of a measurement, at least a chunk")
    parser.add_argument("--depth-sizes", default="64,128,256")
    parser.add_argument("--dense-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    case = Case(
        options.config,
        options.frames or find_config(options.config).num_frames,
        (int(width), int(height)),
        {"device": options.device, "precision": options.precision, "compile": options.compile},
        options.queries,
        options.rounds,
    )
    on_gpu = options.device.startswith("cuda")
    name = (
        torch.cuda.get_device_name()
        if on_gpu
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{name}, torch {torch.__version__}, {options.precision}, {'compiled' if options.compile else 'not compiled'}"
    )
    side = find_config(options.config).image_size
    print(
        f"{options.config}: {case.frames} frames of {options.size}, encoded at {side} x {side}; random weights"
    )
    print(f"medians of {case.rounds} calls of {case.queries:,} queries")
    found = measure(
        case,
        [int(chunk) for chunk in options.chunks.split(",")],
        [int(size) for size in options.depth_sizes.split(",")],
        options.dense_size,
    )
    show(found, options.dense_size)
    if options.json:
        options.json.write_text(json.dumps(found | {"device": name, **vars(case)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
