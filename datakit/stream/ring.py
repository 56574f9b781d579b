"""A ring of equal blocks of memory that batches are made in and handed out from without a copy.

A block that was handed out comes back when the last array into it is gone, whoever holds it. Nobody has to give it
back, and nothing that is still held is written over.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections import deque
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.uint8]

#: Segments that were closed while batches were still held; their pages go when those do.
_held: list[SharedMemory] = []


def _new_name() -> str:
    """Name a segment after its process, so that whoever finds one left behind can tell whose it was."""
    return f"psm_{os.getpid()}_{secrets.token_hex(4)}"


class Ring:
    """Blocks of memory, shared with worker processes or not.

    Args:
        count: Blocks.
        block_size: Bytes of one.
        is_shared: Use shared memory, named `name`.
    """

    def __init__(self, count: int, block_size: int, is_shared: bool) -> None:
        self.count, self.block_size = count, block_size
        self._segment = SharedMemory(_new_name(), create=True, size=count * block_size) if is_shared else None
        self._heap = np.empty(0 if is_shared else count * block_size, np.uint8)
        self._free = deque(range(count))
        self.num_leased = 0

    @property
    def name(self) -> str:
        """Name of the shared memory."""
        return self._segment.name if self._segment else ""

    def take(self) -> int | None:
        """Take a free block, or None if there is none."""
        return self._free.popleft() if self._free else None

    def give_back(self, block: int) -> None:
        """Make a block free."""
        self._free.append(block)

    def at(self, block: int) -> Block:
        """Return the bytes of a block."""
        if self._segment is not None:
            return _view(self._segment, self.block_size, block)
        return self._heap[block * self.block_size : (block + 1) * self.block_size]

    def lease(self, block: int) -> Block:
        """Hand a block out; it is free again when this array and all views of it are gone."""
        # Views of an array keep only its ultimate owner alive. Wrapped anew, this array is that owner.
        owner = np.frombuffer(self.at(block).data, np.uint8)
        self.num_leased += 1
        weakref.finalize(owner, self._returned, block).atexit = False
        return owner

    def _returned(self, block: int) -> None:
        self.num_leased -= 1
        self._free.append(block)

    def close(self) -> None:
        """Remove the shared memory's name; its pages go with the last batch that is still held."""
        segment, self._segment = self._segment, None
        for old in [*_held, *([segment] if segment else [])]:
            try:
                old.close()
            except BufferError:
                if old not in _held:
                    _held.append(old)
            else:
                with suppress(ValueError):
                    _held.remove(old)
        if segment is not None:
            with suppress(FileNotFoundError):
                segment.unlink()


class AttachedRing:
    """A worker's view of a shared ring."""

    def __init__(self, name: str, block_size: int) -> None:
        self.block_size = block_size
        self._segment = SharedMemory(name)

    def at(self, block: int) -> Block:
        """Return the bytes of a block."""
        return _view(self._segment, self.block_size, block)


def _view(segment: SharedMemory, block_size: int, block: int) -> Block:
    assert segment.buf is not None  # for the type checker
    return np.frombuffer(segment.buf, np.uint8, block_size, block * block_size)
