"""What queries cost: 2,048 of them with all targets, masks and patches, from a decoded clip of 48 frames 256x256.

Printed beside the same clip's plain gather (one depth value and one colour patch a query, nothing else), so that the
ratio says how much the geometry adds on this machine.

    python benchmarks/queries.py [--rounds 50]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from datakit.geometry import crop_intrinsics, resize_intrinsics
from datakit.motion import MotionKind
from datakit.queries import SAMPLERS, ClipView, sample
from datakit.scene.records import MotionRecord
from datakit.worlds import World, random_world

FRAMES, SIZE, QUERIES = 48, (256, 256), 2048


def make_clip(world: World) -> ClipView:
    """Render the clip: full depth grid, the network sees the middle 80 % of it."""
    camera = world.views["camera"]
    rendered = [world.render(t) for t in range(FRAMES)]
    margin = 0.1 * SIZE[0]
    inner = (SIZE[0] - 2 * margin, SIZE[1] - 2 * margin)
    ids = np.stack([frame.instances for frame in rendered])
    bodies = world.bodies
    motion = MotionRecord(
        times=world.times,
        instance_ids=np.array([body.id for body in bodies], np.uint32),
        instance_names=tuple(body.name for body in bodies),
        instance_motion=np.array([int(body.motion) for body in bodies], np.uint8),
        world_from_instance=np.stack(
            [world.world_from_instance_at(body.id, world.times) for body in bodies], axis=1
        ),
    )
    edge = ids[:, :, 1:] != ids[:, :, :-1]
    moves = np.isin(ids, motion.instance_ids[motion.instance_motion == MotionKind.RIGID])
    return ClipView(
        video=np.stack([frame.rgb for frame in rendered]),
        times=world.times,
        intrinsics=resize_intrinsics(crop_intrinsics(camera.intrinsics, margin, margin), inner, SIZE),
        world_from_cam=camera.world_from_cam,
        pose_is_known=np.ones(FRAMES, bool),
        aspect_ratio=1.0,
        z_depth=np.stack([frame.z_depth for frame in rendered]).astype(np.float32),
        depth_intrinsics=camera.intrinsics,
        depth_kind="rendered",
        instances=ids,
        normals_world=np.stack([frame.normals_world for frame in rendered]).astype(np.float32),
        patch_frames=np.stack([frame.rgb for frame in rendered]),
        patch_intrinsics=camera.intrinsics,
        motion=motion,
        motion_index=np.arange(FRAMES),
        boundary_depth=np.argwhere(edge).astype(np.int32),
        boundary_motion=np.argwhere(edge & (moves[:, :, 1:] | moves[:, :, :-1])).astype(np.int32),
    )


def plain_gather(clip: ClipView, rng: np.random.Generator) -> None:
    """Read one depth value and one 9x9 patch a query: what any sampler must do."""
    t, row, col = rng.integers(0, (FRAMES, SIZE[1] - 9, SIZE[0] - 9), (QUERIES, 3)).T
    clip.z_depth[t, row, col].sum()
    reach = np.arange(9)
    clip.patch_frames[t[:, None, None], row[:, None, None] + reach[:, None], col[:, None, None] + reach].sum()


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Median CPU time of a call on this thread."""
    work()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return 1000 * median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    clip = make_clip(random_world(0, motion="rigid", num_frames=FRAMES, size=SIZE))
    rng = np.random.default_rng(0)
    base = milliseconds(lambda: plain_gather(clip, rng), rounds)
    print(f"{QUERIES} queries, {FRAMES} frames {SIZE[0]}x{SIZE[1]}, CPU ms a clip (median of {rounds})")
    print(f"  {'plain gather':<14}{base:8.2f}   1.0x")
    for name in SAMPLERS:
        cost = milliseconds(lambda name=name: sample(clip, rng, QUERIES, name), rounds)  # type: ignore[misc]
        print(f"  {name:<14}{cost:8.2f}{cost / base:6.1f}x")


if __name__ == "__main__":
    main()
