"""From the stream to the device: the next batch is on its way while the last one is trained on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datakit.stream import Stream
from datakit.stream.torch_dataset import to_torch

#: What a step needs on its device.
_QUERY = ("uv", "t_src", "t_tgt", "t_cam", "patch")


@dataclass(frozen=True)
class Fed:
    """A batch, and where the stream is after it.

    Attributes:
        batch: video, frame_mask, aspect_ratio, query, target, mask on the device; meta as the stream gave it.
            `frame_mask` is None where every frame is there: the model is faster without.
        stream_state: `Stream.state_dict()` to go on with the next batch.
        ready: Event to wait for on a GPU, else None.
    """

    batch: dict[str, Any]
    stream_state: dict[str, Any]
    ready: torch.cuda.Event | None


class Feed:
    """Take batches of a stream, and fetch ahead when told to.

    Args:
        stream: Where from.
        device: Where to. To a GPU, copies go through pinned memory on a CUDA stream of their own.

    Attributes:
        waited: Seconds that `take` and `look_ahead` have spent waiting for the stream.
    """

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self._stream, self._device = stream, device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: Fed | None = None
        self.waited = 0.0

    def take(self) -> Fed:
        """Return the next batch, ready for use on the current CUDA stream."""
        fed = self._ahead if self._ahead is not None else self._fetch()
        self._ahead = None
        if fed.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(fed.ready)
            for tensor in _tensors(fed.batch):
                tensor.record_stream(torch.cuda.current_stream(self._device))
        return fed

    def look_ahead(self) -> None:
        """Fetch the next batch now; on a GPU this runs beside the work that was given to it.

        Not before a checkpoint: the stream's ledger would count a batch that was not trained on. On a CPU there is
        nothing to overlap with but the stream's own workers.
        """
        if self._ahead is None and self._side is not None:
            self._ahead = self._fetch()

    def _fetch(self) -> Fed:
        before = time.perf_counter()
        batch = next(self._stream)
        self.waited += time.perf_counter() - before
        state = self._stream.state_dict()
        # On the CPU nothing is copied: the batch holds the stream's memory until it is dropped.
        moved = to_device(batch, self._device, self._side)
        return Fed(moved, state, None if self._side is None else self._side.record_event())


def to_device(
    batch: Mapping[str, Any], device: torch.device, side: torch.cuda.Stream | None = None
) -> dict[str, Any]:
    """Bring what a step needs of a batch to a device.

    Args:
        batch: As the stream yields it: numpy arrays.
        device: Where to.
        side: CUDA stream to copy on, from pinned memory; None for the current one.
    """
    needed = {
        "video": batch["video"],
        "aspect_ratio": batch["aspect_ratio"],
        "query": {name: batch["query"][name] for name in _QUERY},
        "target": dict(batch["target"]),
        "mask": dict(batch["mask"]),
    }
    if not batch["frame_mask"].all():
        needed["frame_mask"] = batch["frame_mask"]
    moved = to_torch(needed)
    if device.type == "cuda":
        with torch.cuda.stream(side):
            moved = _moved(moved, device)
    return {"frame_mask": None} | moved | {"meta": batch["meta"]}


def micro_batches(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Cut a batch along its clips into parts of one size."""
    size = len(batch["video"]) // parts

    def cut(value: Any, rows: slice) -> Any:
        if isinstance(value, Mapping):
            return {name: cut(inner, rows) for name, inner in value.items()}
        return None if value is None else value[rows]

    return [cut(batch, slice(at * size, (at + 1) * size)) for at in range(parts)]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _moved(inner, device) for name, inner in value.items()}
    return value.pin_memory().to(device, non_blocking=True)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in _tensors(inner)]
    return [value] if isinstance(value, Tensor) else []
