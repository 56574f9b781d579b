"""How fast the stream is beside other ways to read the same clips, and whether its memory stays flat.

    python benchmarks/stream.py                                 # clips/s and CPU-s a clip of everyone, and ratios
    python benchmarks/stream.py --memory 100000 --out m.json    # resident memory, with a plot

Clips are 48 frames of 256 x 256 with depth, labels and rigid motion, rendered once and kept in --data. Everyone makes
2,048 queries with all targets and patches from each clip by the same sampler, save "decode": that decodes the same
JPEG frames and depth codes from memory, with this package's own calls and into memory that is used again, and does
nothing else. "decode to metres" also turns every depth code into float32, as a loader that hands over depth must.

Two kinds of readers: "alone" work in as many processes as there are workers and keep what they make; the others hand
it over to this process, the stream through its ring, torch's DataLoader through its queues. Alone is in favour of
those measured so. LitData and MosaicML Streaming take part where they are installed.

Rounds are interleaved; a ratio is the median of the rounds' ratios. On a shared machine trust CPU time before rates.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import multiprocessing as mp
import os
import shutil
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, SIZE, QUERIES, BATCH = 48, 256, 2048, 2
Clips = Iterator[Any]
Found = tuple[float, float]


# ---- the same clips for everyone ----------------------------------------------------------------------------------


def prepare(data: Path, scenes: int) -> None:
    """Render scenes, pack them, and write the same clips in the other formats."""
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
        params = PackParams(min_level="none", rgb="jpeg", clip_frames=FRAMES)
        pack(paths, data / "set", params=params, progress=False)
    for name, write in {"wds": write_tars, "hdf5": write_hdf5, "lit": write_lit, "mds": write_mds}.items():
        done = data / f"{name}.done"
        if not done.exists() and (name not in NEEDS or find_spec(NEEDS[name])):
            write(data, list(members_in_memory(data)))
            done.touch()


def with_layers(scene: Any) -> Any:
    """Keep colour, depth and labels of a scene."""
    view = scene.record.views["camera"]
    view = replace(view, layers={name: view.layers[name] for name in ("rgb", "z_depth", "instances")})
    scene.record = replace(scene.record, views={"camera": view})
    scene.frames = (
        replace(frame, layers={name: frame.layers[name] for name in view.layers}) for frame in scene.frames
    )
    return scene


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


def rasters_and_rest(view: Any) -> dict[str, Any]:
    """Everything that queries need beside colour, as plain arrays."""
    motion = view.motion
    return {
        "z_depth": np.asarray(view.z_depth), "instances": np.array(view.instances),
        "times": view.times, "intrinsics": view.intrinsics, "world_from_cam": view.world_from_cam,
        "instance_ids": motion.instance_ids, "instance_motion": motion.instance_motion,
        "world_from_instance": motion.world_from_instance,
        "boundary_depth": view.boundary_depth, "boundary_motion": view.boundary_motion,
    }  # fmt: skip


def write_tars(data: Path, clips: list[Any]) -> None:
    """Write webdataset's idiom: a jpg a frame and an npz for the rest, a tar a clip."""
    for number, (_, rgb, _, view) in enumerate(clips):
        with tarfile.open(data / f"wds-{number:03d}.tar", "w") as tar:
            for t, blob in enumerate(rgb):
                add_member(tar, f"clip{number:03d}.{t:03d}.jpg", bytes(blob))
            stream = io.BytesIO()
            np.savez_compressed(stream, **rasters_and_rest(view))
            add_member(tar, f"clip{number:03d}.npz", stream.getvalue())


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add bytes to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_hdf5(data: Path, clips: list[Any]) -> None:
    """Write one HDF5 file: JPEG bytes, and bitshuffled rasters chunked by frame."""
    import h5py
    import hdf5plugin

    with h5py.File(data / "clips.h5", "w") as file:
        for number, (_, rgb, _, view) in enumerate(clips):
            group = file.create_group(str(number))
            blobs = group.create_dataset("rgb", (FRAMES,), h5py.vlen_dtype(np.uint8))
            for t, blob in enumerate(rgb):
                blobs[t] = np.frombuffer(blob, np.uint8)
            for name, value in rasters_and_rest(view).items():
                if name in ("z_depth", "instances"):
                    chunks = (1, *value.shape[1:])
                    group.create_dataset(name, data=value, chunks=chunks, **hdf5plugin.Bitshuffle())
                else:
                    group[name] = value


def flat_sample(rgb: Any, view: Any) -> dict[str, Any]:
    """One clip as LitData and MosaicML Streaming store it: JPEG bytes end to end, and arrays."""
    lengths = np.array([len(blob) for blob in rgb], np.int64)
    arrays = {name: np.ascontiguousarray(value) for name, value in rasters_and_rest(view).items()}
    return {"rgb": b"".join(rgb), "rgb_lengths": lengths} | arrays


def write_lit(data: Path, clips: list[Any]) -> None:
    """Write LitData's chunks with its own writer, in this process."""
    from litdata.streaming.writer import BinaryWriter

    shutil.rmtree(data / "lit", ignore_errors=True)
    writer = BinaryWriter(str(data / "lit"), chunk_bytes="64MB")
    for number, (_, rgb, _, view) in enumerate(clips):
        writer[number] = flat_sample(rgb, view)
    writer.done()
    writer.merge()


def write_mds(data: Path, clips: list[Any]) -> None:
    """Write MosaicML's shards."""
    from streaming import MDSWriter

    shutil.rmtree(data / "mds", ignore_errors=True)
    samples = [flat_sample(rgb, view) for _, rgb, _, view in clips]
    columns = {name: "bytes" if name == "rgb" else "ndarray" for name in samples[0]}
    with MDSWriter(out=str(data / "mds"), columns=columns) as out:
        for sample in samples:
            out.write(sample)


#: Format -> package that it needs.
NEEDS = {"lit": "litdata", "mds": "streaming"}


# ---- readers: each yields something a clip, for ever --------------------------------------------------------------


def decode_only(data: Path, part: int = 0, parts: int = 1, to_metres: bool = False) -> Clips:
    """Decode frames and depth codes from memory, and nothing else."""
    from datakit.shards.codecs import decode_depth_codes, depth_dtype, depth_from_codes
    from datakit.stream.images import decode_frame

    clips = [clip[:3] for clip in members_in_memory(data)]
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    codes = np.empty((FRAMES, SIZE, SIZE), depth_dtype(clips[0][0]))
    while True:
        for header, rgb, depth in clips:
            for blob, frame in zip(rgb, frames, strict=True):
                decode_frame(blob, frame, "")
            for blob, frame in zip(depth, codes, strict=True):
                decode_depth_codes(blob, header, frame)
            yield depth_from_codes(codes, header) if to_metres else None


def decode_to_metres(data: Path, part: int, parts: int) -> Clips:
    """Decode frames and depth, all of it to float32."""
    return decode_only(data, part, parts, to_metres=True)


def ask(video: Any, rest: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Make the same queries as the stream does from (T, H, W, 3) frames and plain arrays."""
    from datakit.queries import ClipView, sample
    from datakit.scene.records import MotionRecord

    motion = MotionRecord(
        np.asarray(rest["times"]), np.asarray(rest["instance_ids"]), (), np.asarray(rest["instance_motion"]),
        np.asarray(rest["world_from_instance"]),
    )  # fmt: skip
    K = np.asarray(rest["intrinsics"])
    view = ClipView(
        video=video, times=motion.times, intrinsics=K, world_from_cam=np.asarray(rest["world_from_cam"]),
        pose_is_known=np.ones(FRAMES, bool), aspect_ratio=1.0, z_depth=np.asarray(rest["z_depth"]),
        depth_intrinsics=K, depth_kind="rendered", instances=np.asarray(rest["instances"]), normals_world=None,
        patch_frames=video, patch_intrinsics=K, motion=motion, motion_index=np.arange(FRAMES),
        boundary_depth=np.asarray(rest["boundary_depth"]), boundary_motion=np.asarray(rest["boundary_motion"]),
    )  # fmt: skip
    # Pictures are handed on as they lie in memory, as the stream does.
    return {"video": np.moveaxis(video, -1, 1), **sample(view, rng, QUERIES)}


def decode_flat(sample: dict[str, Any]) -> np.ndarray:
    """Decode a sample of `flat_sample`: (T, H, W, 3)."""
    from datakit.stream.images import decode_frame

    video = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    ends = np.cumsum(np.asarray(sample["rgb_lengths"]))
    blobs = memoryview(sample["rgb"])
    for first, last, frame in zip(ends - np.asarray(sample["rgb_lengths"]), ends, video, strict=True):
        decode_frame(blobs[first:last], frame, "")
    return video


def of_tar(clip: dict[str, Any]) -> dict[str, Any]:
    """Make queries of what webdataset decoded."""
    video = np.stack([clip[f"{t:03d}.jpg"] for t in range(FRAMES)])
    return ask(video, dict(clip["npz"]), np.random.default_rng(0))


def web_dataset(data: Path, part: int, parts: int) -> Clips:
    """Plain webdataset with its default decoders."""
    import webdataset as wds

    urls = sorted(str(path) for path in data.glob("wds-*.tar"))[part::parts]
    while True:
        for clip in wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"):
            yield of_tar(clip)


def hdf5(data: Path, part: int, parts: int) -> Clips:
    """Random access to one HDF5 file."""
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
            layers = ("z_depth", "instances")
            rest = {name: np.stack([group[name][t] for t in range(FRAMES)]) for name in layers}
            rest |= {name: group[name][()] for name in group if name not in ("rgb", *layers)}
            yield ask(video, rest, rng)


def in_process(data: Path, part: int, parts: int) -> Clips:
    """The stream without workers."""
    from datakit.stream import AugmentParams, stream

    yield from stream(
        data / "set", batch_size=1, num_queries=QUERIES, augment=AugmentParams.none(), seed=part
    )


def our_stream(data: Path, workers: int, augmented: bool = False) -> Clips:
    """The stream with workers."""
    from datakit.stream import AugmentParams, stream

    augment = AugmentParams() if augmented else AugmentParams.none()
    yield from stream(data / "set", batch_size=BATCH, num_queries=QUERIES, workers=workers, augment=augment)


def augmented_stream(data: Path, workers: int) -> Clips:
    """The stream with workers and the paper's crops and colours."""
    return our_stream(data, workers, augmented=True)


def web_loader(data: Path, workers: int) -> Clips:
    """Plain webdataset in torch's DataLoader."""
    import webdataset as wds

    urls = sorted(str(path) for path in data.glob("wds-*.tar"))
    clips = wds.WebDataset(urls, shardshuffle=False, resampled=True).decode("rgb8").map(of_tar)
    yield from wds.WebLoader(clips, batch_size=BATCH, num_workers=workers)


def lit_data(data: Path, workers: int) -> Clips:
    """LitData with its own loader."""
    import litdata

    class Dataset(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> dict[str, Any]:
            sample = super().__getitem__(index)
            return ask(decode_flat(sample), sample, np.random.default_rng(0))

    loader = litdata.StreamingDataLoader(
        Dataset(str(data / "lit")), batch_size=BATCH, num_workers=workers, persistent_workers=True
    )
    while True:
        yield from loader


def mosaic(data: Path, workers: int) -> Clips:
    """MosaicML Streaming in torch's DataLoader."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    class Dataset(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> dict[str, Any]:
            sample = super().__getitem__(index)
            return ask(decode_flat(sample), sample, np.random.default_rng(0))

    # An epoch is long enough that the loader's own start at each of its ends does not count.
    clips = Dataset(local=str(data / "mds"), batch_size=BATCH, shuffle=False, epoch_size="4000")
    while True:
        yield from DataLoader(clips, batch_size=BATCH, num_workers=workers)


#: Name -> reader that keeps what it makes; one process a worker.
ALONE: dict[str, Callable[[Path, int, int], Clips]] = {
    "decode": decode_only, "decode to metres": decode_to_metres, "webdataset, alone": web_dataset,
    "HDF5, alone": hdf5, "datakit, alone": in_process,
}  # fmt: skip
#: Name -> reader that hands batches over to this process, and the package that it needs.
HANDED: dict[str, tuple[Callable[[Path, int], Clips], str]] = {
    "datakit": (our_stream, "datakit"), "datakit, augmented": (augmented_stream, "datakit"),
    "webdataset": (web_loader, "torch"), "LitData": (lit_data, "litdata"),
    "MosaicML Streaming": (mosaic, "streaming"),
}  # fmt: skip


# ---- measuring ----------------------------------------------------------------------------------------------------


def run_alone(pipe: Any, name: str, data: Path, part: int, parts: int) -> None:
    """In a process of its own: read as many clips as it is told, and tell the CPU time."""
    import cv2

    cv2.setNumThreads(0)
    source = ALONE[name](data, part, parts)
    while clips := pipe.recv():
        start = time.process_time()
        for _ in range(clips):
            next(source)
        pipe.send(time.process_time() - start)


def run_handed(pipe: Any, name: str, data: Path, part: int, parts: int) -> None:
    """The same for a reader with workers: counts this process and all that it started."""
    import psutil

    mp.set_start_method("fork", force=True)  # what torch's loaders use on Linux; ours spawns whatever is set
    source = HANDED[name][0](data, parts)
    while clips := pipe.recv():
        before, made = cpu_of_family(psutil.Process()), 0
        while made < clips:
            made += BATCH
            next(source)
        pipe.send(cpu_of_family(psutil.Process()) - before)
    source.close()
    gc.collect()


def cpu_of_family(process: Any) -> float:
    """CPU seconds of a process and of all that it started, those that have ended among them."""
    import psutil

    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Entrant:
    """A reader and its processes, which wait between rounds.

    Args:
        name: One of `ALONE` or `HANDED`.
        data: Where the clips are.
        workers: Worker processes.
    """

    def __init__(self, name: str, data: Path, workers: int) -> None:
        context = mp.get_context("spawn")
        self.workers, self.count = workers, workers if name in ALONE else 1
        work = run_alone if name in ALONE else run_handed
        self._pipes, self._processes = [], []
        for part in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, name, data, part, workers))
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, clips: int) -> Found:
        """Read so many clips a worker; return (clips per second, CPU seconds per clip)."""
        start = time.perf_counter()
        each = clips * self.workers // self.count
        for pipe in self._pipes:
            pipe.send(each)
        cpu = sum(pipe.recv() for pipe in self._pipes)
        return clips * self.workers / (time.perf_counter() - start), cpu / (clips * self.workers)

    def end(self) -> None:
        """End its processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with suppress(OSError):  # it died: its own message says why
                pipe.send(0)
            process.join(20)
            if process.is_alive():
                process.kill()


def compare(data: Path, rounds: int, clips: int, only: str) -> dict[str, Any]:
    """Measure everyone in turn and print medians and ratios."""
    out: dict[str, Any] = {"bytes": sizes(data)}
    print(f"bytes: {out['bytes']}")
    names = [name for name in (*ALONE, *HANDED) if name == "datakit" or only in name]
    for name in [*names]:
        if name in HANDED and find_spec(HANDED[name][1]) is None:
            print(f"{name}: left out, {HANDED[name][1]} is not installed")
            names.remove(name)
    for workers in (1, 2):
        entrants = {name: Entrant(name, data, workers) for name in names}
        try:
            for entrant in entrants.values():
                entrant.run(4)
            found: dict[str, list[Found]] = {name: [] for name in names}
            for _ in range(rounds):
                for name, entrant in entrants.items():
                    entrant.run(2 * BATCH)  # what was made ahead while it waited does not count
                    found[name].append(entrant.run(clips))
        finally:
            for entrant in entrants.values():
                entrant.end()
        out[f"{workers} workers"] = report(workers, found)
    return out


def report(workers: int, found: dict[str, list[Found]]) -> dict[str, Any]:
    """Print a table of (clips per second, CPU seconds per clip) of each round."""
    out: dict[str, Any] = {}
    print(f"{workers} worker(s)        clips/s   CPU-ms a clip   datakit is x faster   of its CPU")
    ours = np.array(found["datakit"])
    for name, rounds in found.items():
        theirs = np.array(rounds)
        rate, cpu = np.median(theirs, axis=0)
        faster, of_cpu = np.median(ours[:, 0] / theirs[:, 0]), np.median(ours[:, 1] / theirs[:, 1])
        print(f"{name:<20} {rate:8.1f} {1e3 * cpu:12.1f} {faster:18.2f} {of_cpu:15.2f}", flush=True)
        out[name] = {"clips_per_s": rate, "cpu_s": cpu, "datakit_faster": faster, "datakit_cpu": of_cpu}
    return out


def sizes(data: Path) -> dict[str, int]:
    """Bytes of the same clips in each form."""
    forms = {"datakit": "set/*", "jpg + npz in tars": "wds-*.tar", "HDF5": "clips.h5", "LitData": "lit/*",
             "MosaicML Streaming": "mds/*"}  # fmt: skip
    found = {name: sum(path.stat().st_size for path in data.glob(form)) for name, form in forms.items()}
    return {name: size for name, size in found.items() if size}


def memory(data: Path, samples: int, minutes: float, out: Path) -> dict[str, Any]:
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
    counts, sizes_mb, start = [], [], time.perf_counter()
    with stream(root / "set", batch_size=50, clip_frames=2, size=16, num_queries=8, workers=2) as run:
        for batch_number, _ in enumerate(run):
            if batch_number % max(1, samples // 50 // 200) == 0:
                everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
                counts.append(50 * (batch_number + 1))
                sizes_mb.append(sum(process.memory_info().rss for process in everyone) / 1e6)
            if 50 * (batch_number + 1) >= samples or time.perf_counter() - start > 60 * minutes:
                break
    seconds = time.perf_counter() - start
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.plot(counts, sizes_mb)
    pyplot.xlabel("samples")
    pyplot.ylabel("resident memory, all processes, MB")
    pyplot.ylim(0)
    out.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(out.with_suffix(".png"))
    tenth = max(1, len(counts) // 10)
    grown = statistics.mean(sizes_mb[-tenth:]) - statistics.mean(sizes_mb[tenth : 2 * tenth])
    print(
        f"{counts[-1]} samples in {seconds:.0f} s: {sizes_mb[-1]:.0f} MB; "
        f"last tenth minus second tenth {grown:+.1f} MB"
    )
    return {"samples": counts, "rss_mb": sizes_mb, "grown_mb": grown, "seconds": seconds}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("out/bench/stream"), help="where to keep the clips")
    parser.add_argument("--out", type=Path, default=Path("out/bench/stream.json"), help="numbers as JSON")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=20, help="measured clips a worker and round")
    parser.add_argument("--only", default="", help="leave out those without this in their name")
    parser.add_argument("--memory", type=int, default=0, help="watch memory over this many samples instead")
    parser.add_argument("--minutes", type=float, default=15, help="end the memory run after so long")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes to come: they are the parallelism
    if options.memory:
        found = memory(options.data, options.memory, options.minutes, options.out)
    else:
        prepare(options.data, options.scenes)
        found = compare(options.data, options.rounds, options.clips, options.only)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
