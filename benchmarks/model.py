"""What the model costs on the device at hand: forward passes, training steps, memory, and queries a second.

For each configuration, in a process of its own: parameters, a training step (forward, loss, backward), the memory its
first one takes and its share of a measured matrix product's rate (MFU; recomputed activations are not counted as
work), encoding, and decoding with the memory's keys and values kept. Optionally beside the PyPI package `d4rt`
(lucidrains' implementation) at the same width, depth, frames and queries, in the same run.

    python benchmarks/model.py --configs tiny                     # a CPU, half a minute
    python benchmarks/model.py --configs base,paper --checkpointing both --compile
    python benchmarks/model.py --configs small --peer             # needs `pip install d4rt`
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from datakit.d4rt import D4RT, ModelConfig, composite_loss, count_parameters, find_config, forward_flops

#: `auto` leaves the choice to torch.
ATTENTION = {
    "auto": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass(frozen=True)
class Case:
    """What is measured, and where.

    Attributes:
        device: Where.
        precision: `bf16` (autocast) or `fp32`.
        attention: A key of `ATTENTION`.
        batch: Clips of a step.
        queries: Queries of a clip in a step.
        decoded: Queries of the decoding measurement.
        chunk: How many of them at a time.
        rounds: Repetitions; the median counts.
        compile: Whether to compile the layers one by one.
    """

    device: torch.device
    precision: str
    attention: str
    batch: int
    queries: int
    decoded: int
    chunk: int
    rounds: int
    compile: bool

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Run what is inside in this precision and with this attention."""
        kind = torch.bfloat16 if self.precision == "bf16" else None
        rounding = nullcontext() if kind is None else torch.autocast(self.device.type, dtype=kind)
        backend = ATTENTION[self.attention]
        with rounding, nullcontext() if backend is None else sdpa_kernel(backend):
            yield


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], case: Case) -> float:
    """Median wall time of a call, after two that warm up."""
    times = []
    for number in range(case.rounds + 2):
        wait(case.device)
        start = time.perf_counter()
        work()
        wait(case.device)
        if number >= 2:
            times.append(time.perf_counter() - start)
    return median(times)


class Peak:
    """Largest memory inside a `with`, MiB above what was taken before: the GPU allocator's, or the process's."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mebibytes = device, 0.0

    def __enter__(self) -> Peak:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before, self._largest, self._goes_on = resident(), 0, True
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mebibytes = (torch.cuda.max_memory_allocated() - self._before) / 2**20
        else:
            self._goes_on = False
            self._thread.join()
            self.mebibytes = max(self._largest - self._before, 0) / 2**20

    def _watch(self) -> None:
        while self._goes_on:
            self._largest = max(self._largest, resident())
            time.sleep(0.002)


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def matmul_rate(case: Case) -> float:
    """Measured FLOP/s of a large matrix product, the 100 % of MFU."""
    side = 8192 if case.device.type == "cuda" else 1024
    kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
    a = torch.randn((side, side), device=case.device).to(kind)  # zeros would flatter the clock
    return 2 * side**3 / seconds(lambda: a @ a, replace(case, rounds=10))


def make_batch(config: ModelConfig, case: Case) -> dict[str, Any]:
    """A batch as the stream yields it, random, everything known."""
    generator = torch.Generator().manual_seed(0)
    shape, frames = (case.batch, case.queries), config.num_frames

    def draw(*size: int) -> Tensor:
        return torch.randn((*shape, *size), generator=generator)

    size = config.image_size
    video = torch.randint(0, 256, (case.batch, frames, 3, size, size), generator=generator, dtype=torch.uint8)
    target = {name: draw(3) for name in ("xyz", "displacement", "normal")} | {"uv": draw(2)}
    target["visible"] = draw() > 0
    patch = (*shape, 3, config.query_patch, config.query_patch)
    batch = {
        "video": video,
        "aspect_ratio": torch.ones(case.batch),
        "query": make_query(config, case.batch, case.queries)
        | {"patch": torch.randint(0, 256, patch, generator=generator, dtype=torch.uint8)},
        "target": target,
        "mask": {name: torch.ones(shape, dtype=torch.bool) for name in target},
    }
    return move(batch, case.device)


def make_query(config: ModelConfig, batch: int, count: int) -> dict[str, Tensor]:
    """Random queries without patches."""
    generator = torch.Generator().manual_seed(1)
    times = torch.randint(0, config.num_frames, (3, batch, count), generator=generator)
    uv = torch.rand((batch, count, 2), generator=generator)
    return {"uv": uv, "t_src": times[0], "t_tgt": times[1], "t_cam": times[2]}


def move(tree: Any, device: torch.device) -> Any:
    """Move tensors in nested dictionaries."""
    if isinstance(tree, dict):
        return {name: move(value, device) for name, value in tree.items()}
    return tree.to(device)


def measure_step(model: nn.Module, loss: Callable[[], Tensor], case: Case) -> dict[str, float]:
    """Measure a training step without its optimiser: forward, loss, backward."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with case.arithmetic():
            value = loss()
        value.backward()

    # The first step: later ones find memory that the process has kept.
    with Peak(case.device) as peak:
        step()
    time_of_step = seconds(step, case)
    return {
        "step_ms": 1000 * time_of_step,
        "step_MiB": peak.mebibytes,
        "clips_per_s": case.batch / time_of_step,
    }


def measure(name: str, config: ModelConfig, case: Case, rate: float) -> dict[str, Any]:
    """Measure one configuration."""
    torch.manual_seed(0)
    with case.device:
        model = D4RT(config)
    if case.compile:
        for block in (*model.encoder.blocks, *model.decoder.layers):
            block.compile(dynamic=False)  # each layer sees one shape
    batch = make_batch(config, case)

    def loss() -> Tensor:
        answer = model(batch["video"], None, batch["aspect_ratio"], batch["query"])
        return composite_loss(answer, batch)[0]

    row: dict[str, Any] = {"config": name, "checkpointing": config.activation_checkpointing}
    row["parameters_M"] = count_parameters(config)["total"] / 1e6
    row |= measure_step(model, loss, case)
    flops = forward_flops(config, case.batch, queries=case.queries)
    row["mfu"] = 3 * flops["total"] / (row["step_ms"] / 1000) / rate
    model.zero_grad(set_to_none=True)
    return row | measure_inference(model.eval(), config, case, batch)


@torch.no_grad()
def measure_inference(model: D4RT, config: ModelConfig, case: Case, batch: dict[str, Any]) -> dict[str, Any]:
    """Encode one clip, then decode many queries in chunks, with keys and values kept and not."""
    video, ratio = batch["video"][:1], batch["aspect_ratio"][:1]
    query = move(make_query(config, 1, case.decoded), case.device)
    with case.arithmetic():
        row = {"encode_ms": 1000 * seconds(lambda: model.encode(video, None, ratio), case)}
        memory = model.encode(video, None, ratio)
        kept = model.keys_values(memory)

        with Peak(case.device) as peak:
            model.decode(kept, query, chunk=case.chunk)
        row["decode_MiB"] = peak.mebibytes

        def again() -> None:
            for at in range(0, case.decoded, case.chunk):
                model.decode(memory, {name: value[:, at : at + case.chunk] for name, value in query.items()})

        row["queries_per_s"] = case.decoded / seconds(
            lambda: model.decode(kept, query, chunk=case.chunk), case
        )
        row["queries_per_s_not_kept"] = case.decoded / seconds(again, case)
    return row


def measure_peer(name: str, config: ModelConfig, case: Case) -> dict[str, Any]:
    """Measure a step of the PyPI package `d4rt` at the configuration's width, depth, frames and queries.

    It is another model: each of its encoder layers has attention over a frame, attention over time and a gated MLP; it
    has a token for each patch of each frame (ours: of each `tubelet` frames); the query's patch is as large as a
    token's; its output is a point and its loss a mean square. Its latent prediction is off, all else as it comes.
    """
    from d4rt import D4RT as Peer

    torch.manual_seed(0)
    model = Peer(
        dim=config.encoder_width,
        video_image_size=config.image_size,
        video_patch_size=config.patch,
        video_max_time_len=config.num_frames,
        enc_depth=config.encoder_depth,
        dec_depth=config.decoder_depth,
        enc_heads=config.encoder_heads,
        enc_dim_head=config.encoder_width // config.encoder_heads,
        dec_heads=config.encoder_heads,
        dec_dim_head=config.encoder_width // config.encoder_heads,
        video_has_latent_ar_module=False,
    ).to(case.device)
    batch = make_batch(config, case)
    query = batch["query"]
    arguments = {
        "coors": (query["uv"] * (config.image_size - 1)).long(),
        "time_src": query["t_src"],
        "time_tgt": query["t_tgt"],
        "time_camera": query["t_cam"],
        "points": batch["target"]["xyz"],
    }
    video = batch["video"].float() / 255

    def loss() -> Tensor:
        found = model(video, **arguments)
        return found if isinstance(found, Tensor) else found[0]

    row: dict[str, Any] = {"config": f"{name} (PyPI d4rt)", "checkpointing": False}
    row["parameters_M"] = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return row | measure_step(model, loss, case)


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
    """Call in a new process, so that memory is not what an earlier measurement has left; None where it fails."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except (ImportError, torch.OutOfMemoryError, BrokenExecutor) as error:
            print(f"{arguments[0]}, {work.__name__}: {error}", file=sys.stderr)
            return None


COLUMNS = {
    "config": "{:<20}",
    "checkpointing": "{!s:>13}",
    "parameters_M": "{:>12.1f}",
    "step_ms": "{:>10.1f}",
    "step_MiB": "{:>10.0f}",
    "mfu": "{:>7.1%}",
    "clips_per_s": "{:>11.2f}",
    "encode_ms": "{:>10.1f}",
    "queries_per_s": "{:>13.0f}",
    "queries_per_s_not_kept": "{:>22.0f}",
    "decode_MiB": "{:>10.0f}",
}


def header() -> str:
    """Return the names of the columns."""
    return " ".join(f"{name:<20}" if name == "config" else name.rjust(width(name)) for name in COLUMNS)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table; what was not measured is a dash."""
    return " ".join(
        form.format(row[name]) if name in row else "-".rjust(width(name)) for name, form in COLUMNS.items()
    )


def width(name: str) -> int:
    """Width of a column."""
    return int("".join(c for c in COLUMNS[name].split(">")[-1].split("<")[-1].split(".")[0] if c.isdigit()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--configs", default="tiny", help="names of configurations, with commas")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), help="bf16 on a GPU, else fp32, unless given"
    )
    parser.add_argument("--attention", choices=ATTENTION, default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, help="the configuration's unless given")
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--decoded", type=int, default=65536, help="queries of the decoding measurement")
    parser.add_argument("--chunk", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpointing", choices=("off", "on", "both"), default="off")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--peer", action="store_true", help="also the PyPI package d4rt, where it is installed"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = options.precision or ("bf16" if device.type == "cuda" else "fp32")
    case = Case(
        device,
        precision,
        options.attention,
        options.batch,
        options.queries,
        options.decoded,
        options.chunk,
        options.rounds,
        options.compile,
    )
    rate = matmul_rate(case)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"{name}{threads}, torch {torch.__version__}, {precision}, attention {options.attention}")
    print(
        f"matrix product: {rate / 1e12:.2f} TFLOP/s; {case.batch} clip(s) of {case.queries} queries a step;"
    )
    print(f"decoding {case.decoded} queries, {case.chunk} at a time; medians of {case.rounds}")
    print(header())
    rows = []
    for config_name in options.configs.split(","):
        config = find_config(config_name)
        if options.frames:
            config = replace(config, num_frames=options.frames)
        works: list[tuple[Any, ...]] = [
            (measure, config_name, replace(config, activation_checkpointing=on), case, rate)
            for on in {"off": (False,), "on": (True,), "both": (False, True)}[options.checkpointing]
        ]
        if options.peer:
            works.append((measure_peer, config_name, config, case))
        for work in works:
            if (row := alone(*work)) is not None:
                rows.append(row)
                print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"device": name, "matmul": rate, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
