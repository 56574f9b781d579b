"""Worker processes: they make samples in shared memory and send back a few words about each."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from datakit.errors import DatakitError

from .batch import fields, lay_out, row_of
from .order import Sample
from .params import ClipParams
from .ring import AttachedRing
from .sample import Outcome, make_sample
from .sets import Source, open_sources

#: Tasks a worker holds at once: one in work, one waiting so that it never idles.
_TASKS_EACH = 2
_PATIENCE = 5.0


class WorkerError(DatakitError):
    """A worker process died or met a bug."""


@dataclass(frozen=True)
class Job:
    """One sample to make.

    Attributes:
        ticket: Comes back with the outcome.
        block: Block of the ring.
        row: Row of the batch in that block.
        sample: What to make.
    """

    ticket: int
    block: int
    row: int
    sample: Sample


@dataclass(frozen=True)
class _Setup:
    sources: Sequence[Source]
    params: ClipParams
    rows: int
    ring_name: str
    block_size: int


class Pool:
    """Processes that work on jobs in any order.

    Args:
        count: How many.
        sources: Paths or picklable shard sets; each worker opens its own.
        params: What a sample is made of.
        rows: Rows of a batch.
        ring_name: Shared memory to write to.
        block_size: Bytes of one of its blocks.
    """

    def __init__(
        self,
        count: int,
        sources: Sequence[Source],
        params: ClipParams,
        rows: int,
        ring_name: str,
        block_size: int,
    ) -> None:
        # Compiled here once if they never were on this machine; workers then find them in the cache.
        import datakit.queries.kernels  # noqa: F401

        # Spawned, not forked: a fork copies the trainer's threads and locks in whatever state they are.
        context = mp.get_context("spawn")
        setup = _Setup(sources, params, rows, ring_name, block_size)
        self._waiting: deque[Job] = deque()
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._load: dict[Connection, int] = {}
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
            self._load[ours] = 0

    def submit(self, job: Job) -> None:
        """Put a job in line."""
        self._waiting.append(job)
        self._deal()

    def results(self) -> list[tuple[int, Outcome]]:
        """Wait until at least one job is done and return (ticket, outcome) of all that are.

        Raises:
            WorkerError: A worker died, or met a bug.
            DatakitError: The stream is set up wrongly.
        """
        ready = wait([*self._pipes, *(process.sentinel for process in self._processes)])
        out = []
        for pipe in self._pipes:
            if pipe not in ready:
                continue
            try:
                answer = pipe.recv()
            except (EOFError, ConnectionError):
                raise self._death() from None
            if isinstance(answer, BaseException):
                raise answer
            self._load[pipe] -= 1
            out.append(answer)
        if not out:
            raise self._death()
        self._deal()
        return out

    def close(self) -> None:
        """End all workers."""
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes, self._pipes = [], []

    def _deal(self) -> None:
        while self._waiting:
            pipe = min(self._pipes, key=self._load.__getitem__)
            if self._load[pipe] >= _TASKS_EACH:
                return
            try:
                pipe.send(self._waiting[0])
            except OSError:
                raise self._death() from None
            self._waiting.popleft()
            self._load[pipe] += 1

    def _death(self) -> WorkerError:
        for process in self._processes:
            process.join(0.2)
        codes = [process.exitcode for process in self._processes if process.exitcode is not None]
        names = [
            f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" for code in codes
        ]
        killed = any(code < 0 for code in codes)
        return WorkerError(
            "A worker process died",
            found=", ".join(names) or "its pipe closed",
            mend="SIGKILL is most often the system running out of memory: use fewer workers or less read-ahead"
            if killed
            else 'its own words are above; a script\'s loop belongs below `if __name__ == "__main__":`, '
            "for workers import the script anew",
        )


def _serve(pipe: Connection, setup: _Setup) -> None:
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2

    cv2.setNumThreads(0)
    try:
        _work(pipe, setup)
    except (EOFError, ConnectionError):
        # The parent is gone, perhaps in the middle of a sample: there is nobody to tell and nothing to tidy up.
        os._exit(0)
    except DatakitError as error:
        _send_last(pipe, error)
    except Exception as error:
        found = "".join(traceback.format_exception(error))
        _send_last(pipe, WorkerError("A worker process met a bug", found=found))


def _work(pipe: Connection, setup: _Setup) -> None:
    from .clip import Scratch

    sets = open_sources(setup.sources)
    ring, scratch = AttachedRing(setup.ring_name, setup.block_size), Scratch()
    table = fields(setup.params)
    while (job := pipe.recv()) is not None:
        arrays = lay_out(ring.at(job.block), table, setup.rows)
        row = row_of(arrays, job.row)
        pipe.send((job.ticket, make_sample(sets, job.sample, setup.params, row, scratch)))
        del arrays, row


def _send_last(pipe: Connection, error: DatakitError) -> None:
    with suppress(OSError):
        pipe.send(error)
