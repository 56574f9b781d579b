"""How fast the stream is beside other ways to read the same clips, and whether its memory stays flat.

    python benchmarks/stream.py --data /tmp/bench --out stream.json            # clips/s and CPU-s a clip, ratios
    python benchmarks/stream.py --data /tmp/bench --memory 100000 --out m.json # resident memory, with a plot

Clips are 48 frames of 256 x 256 with depth, labels and rigid motion, rendered once and cached in --data. Every reader
makes 2,048 queries with all targets from each clip, save "decode": that only decodes the same JPEG frames and depth
codes from memory. Rounds are interleaved and medians printed: read the ratios, not the milliseconds.

Without torch, webdataset's and HDF5's clips stay in the process that made them; with a DataLoader they would have to
be handed over too. That is in their favour. LitData and MosaicML Streaming are skipped: their loaders are torch's.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing as mp
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, SIZE, QUERIES = 48, 256, 2048
Clips = Iterator[Any]


# ---- the same clips for everyone ----------------------------------------------------------------------------------


def prepare(data: Path, scenes: int) -> None:
    """Render scenes, pack them, and write the same clips as jpg + npz in tars and as one HDF5 file."""
    from datakit.scene import write_scene
    from datakit.shards import PackParams, pack
    from datakit.worlds import random_world
    from datakit.worlds.scene import world_scene_stream

    data.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(scenes):
        paths.append(data / f"scene{seed}.h5")
        if not paths[-1].exists():
            world = random_world(seed, num_frames=FRAMES, size=(SIZE, SIZE), motion="rigid")
            write_scene(paths[-1], with_layers(world_scene_stream(world)))
    if not (data / "set" / "manifest.json").exists():
        pack(
            paths,
            data / "set",
            params=PackParams(min_level="none", rgb="jpeg", clip_frames=FRAMES),
            progress=False,
        )
    if not (data / "others.done").exists():
        write_others(data)
        (data / "others.done").touch()


def with_layers(scene: Any) -> Any:
    """Keep colour, depth and labels of a scene."""
    view = scene.record.views["camera"]
    view = replace(view, layers={name: view.layers[name] for name in ("rgb", "z_depth", "instances")})
    scene.record = replace(scene.record, views={"camera": view})
    scene.frames = (
        replace(frame, layers={name: frame.layers[name] for name in view.layers}) for frame in scene.frames
    )
    return scene


def write_others(data: Path) -> None:
    """Write webdataset's idiom, a jpg a frame and an npz for the rest, and one HDF5 file of chunked frames."""
    import h5py
    import hdf5plugin

    clips = list(members_in_memory(data))
    with h5py.File(data / "clips.h5", "w") as file:
        for number, (header, rgb, depth, view) in enumerate(clips):
            with tarfile.open(data / f"wds-{number:03d}.tar", "w") as tar:
                for t, blob in enumerate(rgb):
                    add_member(tar, f"clip{number:03d}.{t:03d}.jpg", bytes(blob))
                stream = io.BytesIO()
                np.savez_compressed(stream, z_depth=view.z_depth, instances=view.instances, **cameras(view))
                add_member(tar, f"clip{number:03d}.npz", stream.getvalue())
            group = file.create_group(str(number))
            blobs = group.create_dataset("rgb", (FRAMES,), h5py.vlen_dtype(np.uint8))
            for t, blob in enumerate(rgb):
                blobs[t] = np.frombuffer(blob, np.uint8)
            for name in ("z_depth", "instances"):
                values = getattr(view, name)
                group.create_dataset(
                    name, data=values, chunks=(1, *values.shape[1:]), **hdf5plugin.Bitshuffle()
                )
            for name, value in cameras(view).items():
                group[name] = value
            del header, depth


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add bytes to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def cameras(view: Any) -> dict[str, Any]:
    """Everything else that queries need, as plain arrays."""
    motion = view.motion
    return {
        "times": view.times, "intrinsics": view.intrinsics, "world_from_cam": view.world_from_cam,
        "instance_ids": motion.instance_ids, "instance_motion": motion.instance_motion,
        "world_from_instance": motion.world_from_instance,
        "boundary_depth": view.boundary_depth, "boundary_motion": view.boundary_motion,
    }  # fmt: skip


def members_in_memory(data: Path) -> Clips:
    """Yield (header, rgb blobs, depth blobs, view) of every clip."""
    from datakit.shards import decode_clip_header, open_set, unpack
    from datakit.stream import ClipParams
    from datakit.stream.clip import load_clip
    from datakit.stream.order import Look, Sample

    shards, look = open_set(data / "set"), Look(1, 0.5, 0, 0, 1, 1, 1, 0, 0)
    for i in range(shards.num_clips):
        sample = Sample(0, 0, "", 0, i, 0, tuple(range(FRAMES)), look, 0)
        members = shards.read_members(i, ("clip.json", "rgb.pack", "z_depth.pack"))
        header = decode_clip_header(members["clip.json"])
        view = load_clip(shards, sample, ClipParams(FRAMES, SIZE)).view
        yield header, unpack(members["rgb.pack"]), unpack(members["z_depth.pack"]), view


# ---- readers: each yields something a clip, for ever --------------------------------------------------------------


def decode_only(data: Path, part: int, parts: int) -> Clips:
    """Decode frames and depth codes from memory, and nothing else."""
    from datakit.shards import decode_depth_codes
    from datakit.stream.images import decode_frame

    clips = [clip[:3] for clip in members_in_memory(data)]
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    while True:
        for header, rgb, depth in clips:
            for blob, frame in zip(rgb, frames, strict=True):
                decode_frame(blob, frame, "")
            yield [decode_depth_codes(blob, header) for blob in depth]


def ask(video: Any, depth: Any, instances: Any, rest: Any, rng: np.random.Generator) -> Any:
    """Make the same queries as the stream does."""
    from datakit.queries import ClipView, sample
    from datakit.scene.records import MotionRecord

    motion = MotionRecord(
        np.asarray(rest["times"]), np.asarray(rest["instance_ids"]), (), np.asarray(rest["instance_motion"]),
        np.asarray(rest["world_from_instance"]),
    )  # fmt: skip
    K = np.asarray(rest["intrinsics"])
    view = ClipView(
        video=video, times=motion.times, intrinsics=K, world_from_cam=np.asarray(rest["world_from_cam"]),
        pose_is_known=np.ones(FRAMES, bool), aspect_ratio=1.0, z_depth=depth, depth_intrinsics=K,
        depth_kind="rendered", instances=instances, normals_world=None, patch_frames=video, patch_intrinsics=K,
        motion=motion, motion_index=np.arange(FRAMES), boundary_depth=np.asarray(rest["boundary_depth"]),
        boundary_motion=np.asarray(rest["boundary_motion"]),
    )  # fmt: skip
    return np.ascontiguousarray(video.transpose(0, 3, 1, 2)), sample(view, rng, QUERIES)


def web_dataset(data: Path, part: int, parts: int) -> Clips:
    """Plain webdataset with its default decoders."""
    import webdataset as wds

    urls = sorted(str(path) for path in data.glob("wds-*.tar"))[part::parts]
    rng = np.random.default_rng(part)
    while True:
        for clip in wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"):
            video = np.stack([clip[f"{t:03d}.jpg"] for t in range(FRAMES)])
            rest = clip["npz"]
            yield ask(video, rest["z_depth"], rest["instances"], rest, rng)


def hdf5(data: Path, part: int, parts: int) -> Clips:
    """Random access to one HDF5 file: JPEG bytes, and bitshuffled depth chunked by frame."""
    import h5py
    import hdf5plugin  # noqa: F401

    from datakit.stream.images import decode_frame

    rng = np.random.default_rng(part)
    with h5py.File(data / "clips.h5") as file:
        while True:
            group = file[str(rng.integers(len(file)))]
            video = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
            for t in range(FRAMES):
                decode_frame(group["rgb"][t].tobytes(), video[t], "")
            depth = np.stack([group["z_depth"][t] for t in range(FRAMES)])
            instances = np.stack([group["instances"][t] for t in range(FRAMES)])
            yield ask(
                video, depth, instances, {name: group[name][()] for name in group if name[0] != "r"}, rng
            )


def in_process(data: Path, part: int, parts: int) -> Clips:
    """The stream without workers."""
    from datakit.stream import AugmentParams, stream

    yield from stream(
        data / "set", batch_size=1, num_queries=QUERIES, augment=AugmentParams.none(), seed=part
    )


READERS: dict[str, Callable[[Path, int, int], Clips]] = {
    "decode": decode_only, "webdataset": web_dataset, "hdf5": hdf5, "datakit, no workers": in_process,
}  # fmt: skip


# ---- measuring ----------------------------------------------------------------------------------------------------


def run_reader(pipe: Any, name: str, data: Path, part: int, parts: int, clips: int) -> None:
    """In a process of its own: warm up, wait for the others, read, and tell the CPU time."""
    import cv2

    cv2.setNumThreads(0)
    source = READERS[name](data, part, parts)
    for _ in range(3):
        next(source)
    pipe.send("ready")
    pipe.recv()
    start = time.process_time()
    for _ in range(clips):
        next(source)
    pipe.send(time.process_time() - start)


def measure_reader(name: str, data: Path, workers: int, clips: int) -> tuple[float, float]:
    """Return (clips per second, CPU seconds per clip) of `workers` processes side by side."""
    context, pipes, processes = mp.get_context("spawn"), [], []
    for part in range(workers):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=run_reader, args=(theirs, name, data, part, workers, clips)))
        processes[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    start = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    cpu = sum(pipe.recv() for pipe in pipes)
    wall = time.perf_counter() - start
    for process in processes:
        process.join()
    return workers * clips / wall, cpu / (workers * clips)


def measure_stream(data: Path, workers: int, clips: int, augmented: bool) -> tuple[float, float]:
    """Return the same of the stream; CPU is that of the workers and of this process."""
    import psutil

    from datakit.stream import AugmentParams, stream

    augment = AugmentParams() if augmented else AugmentParams.none()
    with stream(data / "set", batch_size=2, num_queries=QUERIES, workers=workers, augment=augment) as run:
        for _ in range(4):
            next(run)
        everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]

        def cpu() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in everyone)

        used, start = cpu(), time.perf_counter()
        for _ in range(workers * clips // 2):
            next(run)
        wall, used = time.perf_counter() - start, cpu() - used
    return workers * clips / wall, used / (workers * clips)


def compare(data: Path, rounds: int, clips: int) -> dict[str, Any]:
    """Measure everyone in turn and print medians and ratios."""
    out: dict[str, Any] = {"bytes": sizes(data)}
    print(f"bytes: {out['bytes']}")
    for workers in (1, 2):
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            for name in READERS:
                found.setdefault(name, []).append(measure_reader(name, data, workers, clips))
            found.setdefault("datakit", []).append(measure_stream(data, workers, clips, False))
            found.setdefault("datakit, augmented", []).append(measure_stream(data, workers, clips, True))
        medians = {name: np.median(runs, axis=0).tolist() for name, runs in found.items()}
        rate, cpu = medians["datakit"]
        print(f"{workers} worker(s)        clips/s   CPU-ms a clip   datakit is x faster   of its CPU")
        for name, (theirs, their_cpu) in medians.items():
            ratios = f"{rate / theirs:18.2f} {cpu / their_cpu:15.2f}"
            print(f"{name:<20} {theirs:8.1f} {1e3 * their_cpu:12.1f} {ratios}", flush=True)
        out[f"{workers} workers"] = medians
    return out


def sizes(data: Path) -> dict[str, int]:
    """Bytes of the same clips in each form."""
    return {
        "datakit": sum(path.stat().st_size for path in (data / "set").iterdir()),
        "webdataset jpg + npz": sum(path.stat().st_size for path in data.glob("wds-*.tar")),
        "hdf5": (data / "clips.h5").stat().st_size,
    }


def memory(data: Path, samples: int, out: Path) -> dict[str, Any]:
    """Stream many short clips and watch the resident memory of this process and its workers."""
    import matplotlib
    import psutil

    from datakit.shards import PackParams, pack
    from datakit.stream import stream
    from datakit.worlds import random_world, write_world_scene

    root = data / "short"
    if not (root / "set" / "manifest.json").exists():
        root.mkdir(parents=True, exist_ok=True)
        for seed in range(20):
            world = random_world(seed, num_frames=4, size=(32, 32), motion="rigid")
            write_world_scene(world, root / f"scene{seed}.h5")
        params = PackParams(min_level="none", rgb="jpeg", clip_frames=2)
        pack(sorted(root.glob("*.h5")), root / "set", params=params, progress=False)
    counts, sizes_mb = [], []
    with stream(root / "set", batch_size=50, clip_frames=2, size=16, num_queries=8, workers=2) as run:
        for batch_number, _ in enumerate(run):
            if batch_number % max(1, samples // 50 // 200) == 0:
                everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
                counts.append(50 * (batch_number + 1))
                sizes_mb.append(sum(process.memory_info().rss for process in everyone) / 1e6)
            if 50 * (batch_number + 1) >= samples:
                break
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.plot(counts, sizes_mb)
    pyplot.xlabel("samples")
    pyplot.ylabel("resident memory, all processes, MB")
    pyplot.ylim(0)
    pyplot.savefig(out.with_suffix(".png"))
    tenth = max(1, len(counts) // 10)
    grown = statistics.mean(sizes_mb[-tenth:]) - statistics.mean(sizes_mb[tenth : 2 * tenth])
    print(f"{counts[-1]} samples: {sizes_mb[-1]:.0f} MB; last tenth minus second tenth {grown:+.1f} MB")
    return {"samples": counts, "rss_mb": sizes_mb, "grown_mb": grown}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="where to keep the clips")
    parser.add_argument("--out", type=Path, default=Path("stream.json"))
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=60, help="measured clips a worker and round")
    parser.add_argument("--memory", type=int, default=0, help="watch memory over this many samples instead")
    options = parser.parse_args()
    if options.memory:
        found = memory(options.data, options.memory, options.out)
    else:
        prepare(options.data, options.scenes)
        found = compare(options.data, options.rounds, options.clips)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
