"""What queries cost: 2,048 of them with all targets, masks and patches, from a decoded clip of 48 frames 256x256.

Four worlds, by how things in them move, are rendered, packed and loaded as the stream loads a clip: depth stays in
its codes, and a crop keeps four fifths of the area. Printed beside a plain gather of the same pixels (the depth value
and the 9x9 colours of each query, nothing else), so that the ratio says how much drawing and geometry add on this
machine. Rounds are interleaved; CPU time of this thread.

    python benchmarks/queries.py [--rounds 50] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datakit.queries import SAMPLERS, ClipView, find_sampler, sample

FRAMES, SIZE, QUERIES = 48, (256, 256), 2048
KINDS = ("static", "rigid", "points", "mixed")


def make_clip(kind: str, data: Path) -> ClipView:
    """Render a world, pack it, and load its clip as the stream does."""
    from datakit.shards import PackParams, open_set, pack
    from datakit.stream import ClipParams
    from datakit.stream.clip import load_clip
    from datakit.stream.order import Look, Sample
    from datakit.worlds import random_world, write_world_scene

    scene, shards = data / f"{kind}.h5", data / kind
    if not (shards / "manifest.json").exists():
        scene.unlink(missing_ok=True)
        write_world_scene(random_world(0, motion=kind, num_frames=FRAMES, size=SIZE), scene)
        pack(
            [scene],
            shards,
            params=PackParams(min_level="none", rgb="jpeg", clip_frames=FRAMES),
            progress=False,
        )
    look = Look(0.8, 0.5, 0.5, 0.5, 1, 1, 1, 0, 0)
    ask = Sample(0, 0, "", 0, 0, 0, tuple(range(FRAMES)), look, 0)
    return load_clip(open_set(shards), ask, ClipParams(FRAMES, SIZE[0])).view


def plain_gather(clip: ClipView) -> Callable[[], object]:
    """Read one depth value and one 9x9 patch a query: what any sampler must do."""
    draw = find_sampler("paper")(clip, np.random.default_rng(0), QUERIES)
    t = draw.t_src
    col, row = (np.clip(draw.uv_px.astype(np.int64), 4, np.array(SIZE) - 5)).T
    reach = np.arange(-4, 5)
    rows, cols = row[:, None, None] + reach[:, None], col[:, None, None] + reach
    return lambda: (clip.z_depth[t, row, col], clip.patch_frames[t[:, None, None], rows, cols])


def milliseconds(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU time of each call on this thread, the least disturbed; every round calls all of them once."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            start = time.thread_time()
            work()
            times[name].append(time.thread_time() - start)
    return {name: 1000 * min(found) for name, found in times.items()}


def measure(data: Path, rounds: int) -> None:
    """Measure every kind of world and print."""
    rng = np.random.default_rng(0)
    found: dict[str, float] = {}
    for kind in KINDS:
        clip = make_clip(kind, data)
        works: dict[str, Callable[[], object]] = {f"{kind} gather": plain_gather(clip)}
        for name in SAMPLERS:
            works[f"{kind} {name}"] = lambda clip=clip, name=name: sample(clip, rng, QUERIES, name)  # type: ignore[misc]
        found |= milliseconds(works, rounds)
    print(f"{QUERIES} queries, {FRAMES} frames {SIZE[0]}x{SIZE[1]}: CPU ms a clip (least of {rounds}),")
    print("and as many times a plain gather of the same pixels")
    print(f"{'':<12}" + "".join(f"{kind:>16}" for kind in KINDS))
    for name in ("gather", *SAMPLERS):
        cells = (
            f"{found[f'{kind} {name}']:8.2f}{found[f'{kind} {name}'] / found[f'{kind} gather']:6.1f} x"
            for kind in KINDS
        )
        print(f"{name:<12}" + "".join(cells))


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--data", type=Path, help="where to keep the packed worlds; default: nowhere")
    options = parser.parse_args()
    if options.data:
        options.data.mkdir(parents=True, exist_ok=True)
        measure(options.data, options.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
