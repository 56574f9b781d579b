"""The stream as a `torch.utils.data.IterableDataset`; needs the extra `torch`, imported when it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError

from .batch import nest
from .loader import Batch, Stream, stream

#: Arrays of a parcel start at multiples of this.
_ALIGN = 64


def to_torch(batch: Mapping[str, Any]) -> Batch:
    """Turn the arrays of a batch into tensors over the same memory; lists of text stay.

    Raises:
        UsageError: torch is not installed.
    """
    torch = _torch()
    return {
        name: to_torch(value)
        if isinstance(value, Mapping)
        else torch.from_numpy(value)
        if hasattr(value, "dtype")
        else value
        for name, value in batch.items()
    }


def torch_dataset(sources: Any, mixture: Mapping[str, float] | None = None, **options: Any) -> Any:
    """Make an `IterableDataset` that yields whole batches of tensors.

    Use it as `DataLoader(torch_dataset(...), batch_size=None, num_workers=n)`, or with torchdata's
    `StatefulDataLoader`, which also takes its place in the stream along. Each of the loader's workers makes every
    n-th step, so the loader's own order is the stream's. Resuming a `StatefulDataLoader` needs as many workers as
    before, as it always does; `load_state_dict` on the dataset itself, before the loader starts, does not.

    The loader's pickling costs about as much CPU as decoding; `datakit.stream(workers=n)` does without.

    Args:
        sources: As of `stream`.
        mixture: As of `stream`.
        **options: As of `stream`; its own `workers` must stay 0.

    Returns:
        The dataset. `state_dict()` holds one integer: the next step.

    Raises:
        UsageError: torch is not installed, or an argument does not fit.
    """
    if options.get("workers"):
        raise UsageError(
            "A DataLoader brings its own workers", found=f"workers={options['workers']}", expected=0
        )
    return _dataset_class()(sources, mixture, options)


class StreamSteps:
    """What the dataset does; torch's base class is joined to it when torch is there.

    Args:
        sources: As of `stream`.
        mixture: As of `stream`.
        options: As of `stream`.
    """

    def __init__(self, sources: Any, mixture: Mapping[str, float] | None, options: dict[str, Any]) -> None:
        self._arguments = (sources, mixture, options)
        self._state: dict[str, Any] | None = None
        self._stream: Stream | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (*self._arguments, self._state)

    def __iter__(self) -> Iterator[Any]:
        info = _torch().utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        sources, mixture, options = self._arguments
        self._stream = stream(sources, mixture, **options)
        state, self._state = self._state, None  # the iteration after this one begins anew
        if state is not None:
            self._stream.load_state_dict(state)
        if state is None or not state.get("is_of_worker"):
            self._stream.skip(first)
        self._stream.every = every
        if info is None:
            yield from map(to_torch, self._stream)
            return
        import cv2

        cv2.setNumThreads(
            0
        )  # the loader's processes are the parallelism, and a forked one has none of the threads
        yield from map(_Parcel, self._stream)

    def state_dict(self) -> dict[str, Any]:
        """Return the next step of this process, and what it is valid for."""
        if self._stream is None:
            sources, mixture, options = self._arguments
            return self._state or stream(sources, mixture, **options).state_dict()
        return self._stream.state_dict() | {"is_of_worker": _torch().utils.data.get_worker_info() is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state when iteration starts next."""
        self._state, self._stream = dict(state), None


class _Parcel:
    """A batch on its way from a worker of a loader: it arrives as the dictionary of tensors that `to_torch` makes.

    All arrays lie in one piece of shared memory. A tensor each would send some thirty file descriptors a batch. And
    torch copies what is not shared yet in a thread of its own; where a loader is dropped meanwhile, that thread
    aborts the process (`THPStorage_shareFd` in torch/csrc/StorageSharing.cpp gives up the interpreter's lock for the
    copy and cannot take it again once the interpreter ends).

    Args:
        batch: Of the stream.
    """

    def __init__(self, batch: Batch) -> None:
        arrays, self._rest = _flat(batch)
        spans = [-(-array.nbytes // _ALIGN) * _ALIGN for array in arrays.values()]
        self._memory = _torch().empty(sum(spans), dtype=_torch().uint8).share_memory_()
        self._table: dict[str, Any] = {}
        whole, at = self._memory.numpy(), 0
        for (name, array), span in zip(arrays.items(), spans, strict=True):
            self._table[name] = (at, array.dtype.str, array.shape)
            np.copyto(_view(whole, *self._table[name]), array)
            at += span

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (self._memory, self._table, self._rest)


def _unpack(memory: Any, table: Mapping[str, Any], rest: Mapping[str, Any]) -> Batch:
    whole = memory.numpy()
    return to_torch(nest({name: _view(whole, *place) for name, place in table.items()} | dict(rest)))


def _view(memory: NDArray[np.uint8], start: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return memory[start : start + size].view(dtype).reshape(shape)


def _flat(batch: Mapping[str, Any], group: str = "") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Undo `nest`: the arrays, and what is none."""
    arrays: dict[str, NDArray[Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            inner, others = _flat(value, f"{group}{name}/")
            arrays |= inner
            rest |= others
        else:
            (arrays if isinstance(value, np.ndarray) else rest)[f"{group}{name}"] = value
    return arrays, rest


def _remake(sources: Any, mixture: Any, options: dict[str, Any], state: dict[str, Any] | None) -> Any:
    dataset = _dataset_class()(sources, mixture, options)
    if state is not None:
        dataset.load_state_dict(state)
    return dataset


@cache
def _dataset_class() -> type[Any]:
    return type("StreamDataset", (StreamSteps, _torch().utils.data.IterableDataset), {})


def _torch() -> Any:
    try:
        import torch.utils.data
    except ImportError as error:
        raise UsageError("This needs torch", mend="pip install 'datakit[torch]'") from error
    return torch
