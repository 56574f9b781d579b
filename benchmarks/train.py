r"""What a training step costs: time, MFU, memory, clips a second, and how long it waits for real shards.

For each configuration: forward, loss, backward, clipping and AdamW on clips that are on the device already; the rate of
a large matrix product measured in the same minute, of which MFU is a share (recomputed activations do not count); and
with `--shards`, the same steps fed by the stream. `--peer` times the PyPI package `d4rt` (0.1.0) at the same width,
heads, frames and queries beside it. Its layers hold attention over space, attention over time and one MLP where two of
ours hold attention within a slice, attention over all, and two MLPs; it has a token a frame where we have one for two,
and one output (xyz) of our six. So it is given half as many encoder layers.

    python benchmarks/train.py                                            # tiny, on this machine
    python benchmarks/train.py --models base paper --batch 1 2 4 --compile off blocks --checkpointing --peer \
        --shards SHARDS --workers 12 --json train.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from datakit.d4rt import CONFIGS, D4RT, ModelConfig, composite_loss, forward_flops
from datakit.stream import stream
from datakit.train.config import ExecutionConfig, OptimConfig
from datakit.train.feed import Feed
from datakit.train.optim import make_optimizer
from datakit.train.parallel import Ranks, spread
from datakit.train.speed import matmul_rate

Batch = dict[str, Any]


def made_up(config: ModelConfig, batch: int, queries: int, device: torch.device) -> Batch:
    """Make clips and questions of the right shapes; what they show does not matter to the clock."""
    draw = torch.Generator(device).manual_seed(0)
    frames, size, patch = config.num_frames, config.image_size, config.query_patch

    def whole(*shape: int, high: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=draw, device=device, dtype=dtype)

    def real(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=draw, device=device)

    shapes = {"xyz": (3,), "uv": (2,), "visible": (), "displacement": (3,), "normal": (3,)}
    target = {name: real(batch, queries, *shape) + 0.1 for name, shape in shapes.items()}
    target["visible"] = target["visible"] > 0.5
    query = {
        name: whole(batch, queries, high=frames, dtype=torch.int64) for name in ("t_src", "t_tgt", "t_cam")
    }
    return {
        "video": whole(batch, frames, 3, size, size, high=256, dtype=torch.uint8),
        "frame_mask": None,
        "aspect_ratio": torch.ones(batch, device=device),
        "query": query
        | {
            "uv": real(batch, queries, 2),
            "patch": whole(batch, queries, 3, patch, patch, high=256, dtype=torch.uint8),
        },
        "target": target,
        "mask": {name: torch.ones(batch, queries, dtype=torch.bool, device=device) for name in shapes},
        "meta": {},
    }


def ours(config: ModelConfig, device: torch.device, precision: str, compile: str) -> Callable[[Batch], None]:
    """Return a whole step of our model."""
    execution = ExecutionConfig(precision=precision, compile=compile, strategy="none")  # type: ignore[arg-type]
    model = D4RT(config).to(device)
    module = spread(model, Ranks(0, 1, device, "none"), execution)
    optimizer = make_optimizer(model, OptimConfig())
    half = torch.bfloat16 if precision == "bf16" else None

    def step(batch: Batch) -> None:
        with torch.autocast(device.type, half, enabled=half is not None):
            answer = module(batch["video"], batch["frame_mask"], batch["aspect_ratio"], batch["query"])
        total, _, _ = composite_loss(answer, batch)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        total.item()  # as the trainer does: it must know that the loss is a number

    return step


def peer(config: ModelConfig, device: torch.device, precision: str) -> Callable[[Batch], None]:
    """Return a step of the package `d4rt`; its own loss, on xyz."""
    from d4rt import D4RT as Peer

    model = Peer(
        dim=config.encoder_width,
        video_image_size=config.image_size,
        video_patch_size=config.patch,
        video_max_time_len=config.num_frames,
        enc_depth=config.encoder_depth // 2,
        dec_depth=config.decoder_depth,
        enc_heads=config.encoder_heads,
        enc_dim_head=config.encoder_width // config.encoder_heads,
        dec_heads=config.decoder_heads,
        dec_dim_head=config.encoder_width // config.decoder_heads,
        video_has_latent_ar_module=False,
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    half = torch.bfloat16 if precision == "bf16" else None

    def step(batch: Batch) -> None:
        query = batch["query"]
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = model(
                batch["video"].float() / 255,
                coors=(query["uv"] * (config.image_size - 1)).long(),
                time_src=query["t_src"],
                time_tgt=query["t_tgt"],
                time_camera=query["t_cam"],
                points=batch["target"]["xyz"],
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def measure(step: Callable[[Batch], None], batch: Batch, device: torch.device, steps: int) -> dict[str, Any]:
    """Time steps after some to warm up; milliseconds, and memory where the device counts it."""
    for _ in range(3):
        step(batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(steps):
        before = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - before)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {"step_ms": 1e3 * median(times), "peak_gib": peak}


def measure_fed(
    step: Callable[[Batch], None], config: ModelConfig, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Time steps that wait for the stream."""
    with stream(
        options.shards,
        batch_size=batch,
        clip_frames=config.num_frames,
        size=config.image_size,
        num_queries=options.queries,
        workers=options.workers,
        read_ahead=4,
    ) as clips:
        feed = Feed(clips, options.device)
        for _ in range(3):
            step(feed.take().batch)
        feed.look_ahead()
        before, waited = time.perf_counter(), feed.waited
        for _ in range(options.steps):
            fed = feed.take()
            # The device is still busy with this step's work while the next batch is fetched and sent.
            step(fed.batch)
            feed.look_ahead()
        seconds = time.perf_counter() - before
    return {
        "fed_clips_per_second": batch * options.steps / seconds,
        "stall_share": (feed.waited - waited) / seconds,
        "workers": options.workers,
    }


def cases(options: argparse.Namespace) -> Iterator[tuple[str, ModelConfig, int, str]]:
    """Yield what is measured: model, its configuration, clips, and what is compiled."""
    for name in options.models:
        config = replace(CONFIGS[name], activation_checkpointing=options.checkpointing)
        for batch in options.batch:
            for compile in options.compile:
                yield name, config, batch, compile


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure each case; one that does not fit in memory says so."""
    kind = torch.bfloat16 if options.precision == "bf16" else torch.float32
    for name, config, batch, compile in cases(options):
        row: dict[str, Any] = {"model": name, "batch": batch, "compile": compile}
        row |= {"precision": options.precision, "frames": config.num_frames, "queries": options.queries}
        row["checkpointing"] = options.checkpointing
        try:
            step = ours(config, options.device, options.precision, compile)
            clips = made_up(config, batch, options.queries, options.device)
            row |= measure(step, clips, options.device, options.steps)
            row["matmul_tflops"] = matmul_rate(options.device, kind) / 1e12
            flops = 3 * forward_flops(config, batch, config.num_frames, options.queries)["total"]
            row["mfu"] = flops / (row["step_ms"] * 1e9) / row["matmul_tflops"]
            row["clips_per_second"] = 1e3 * batch / row["step_ms"]
            if options.shards:
                row |= measure_fed(step, config, batch, options)
            del step
            if options.peer and compile == options.compile[0]:
                other = measure(
                    peer(config, options.device, options.precision), clips, options.device, options.steps
                )
                row |= {f"peer_{key}": value for key, value in other.items()}
                row["times_faster_than_peer"] = other["step_ms"] / row["step_ms"]
        except torch.cuda.OutOfMemoryError:
            row["error"] = "out of memory"
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
        yield row


def main() -> None:
    """Parse, measure, print, and write one JSON file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["tiny"], choices=list(CONFIGS))
    parser.add_argument("--batch", nargs="+", type=int, default=[4], help="clips of a step")
    parser.add_argument("--queries", type=int, help="of a clip [2048 on a GPU, 256 on a CPU]")
    parser.add_argument("--compile", nargs="+", default=["off"], choices=["off", "blocks", "model"])
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="[bf16 on a GPU, fp32 on a CPU]")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--shards", nargs="+", help="measure the wait for these too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peer", action="store_true", help="the PyPI package d4rt beside it")
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    options = parser.parse_args()
    options.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = options.device.type == "cuda"
    options.queries = options.queries or (2048 if on_gpu else 256)
    options.precision = options.precision or ("bf16" if on_gpu else "fp32")
    if options.threads:
        torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    out: dict[str, Any] = {"device": name, "torch": torch.__version__, "rows": []}
    print(f"{name}, torch {torch.__version__}")
    for row in rows(options):
        out["rows"].append(row)
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items() if value is not None), flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
