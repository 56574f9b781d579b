"""Where tasks run: in this process, in a pool of processes, or on a Ray cluster. All three look the same."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any, Protocol, TypeVar

from datakit.errors import UsageError

from .task import Outcome, Task, convert_scene, lost_worker

Result = TypeVar("Result")
#: How long a cluster has for answering.
_KNOCK_SECONDS = 10.0


class Pool(Protocol):
    """Takes tasks, gives outcomes in the order they finish.

    Attributes:
        width: How many tasks it can hold at once.
        in_flight: How many it holds.
        is_broken: Whether it can take no more.
    """

    width: int
    is_broken: bool

    @property
    def in_flight(self) -> int:
        """Number of tasks it holds."""
        ...

    def submit(self, task: Task) -> None:
        """Hand over a task; call it only while `in_flight < width`."""
        ...

    def next_outcome(self) -> Outcome:
        """Wait for the next task to end."""
        ...

    def close(self, kill: bool) -> None:
        """Give the workers back; with `kill`, without waiting for what they are doing."""
        ...


class LocalPool:
    """Runs a task when its outcome is asked for, in this process."""

    width = 1
    is_broken = False

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    @property
    def in_flight(self) -> int:
        """Number of tasks it holds."""
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        """Keep the task for `next_outcome`."""
        self._tasks.append(task)

    def next_outcome(self) -> Outcome:
        """Run the task."""
        task = self._tasks.pop()
        return convert_scene(task)

    def close(self, kill: bool) -> None:
        """Nothing runs between calls."""


class Workers:
    """Fresh processes ("spawn": no thread, lock or other state of this one is inherited) that end when told.

    Ctrl-C reaches only this process, and they do not outlive it, however it ends.
    """

    def __init__(self, width: int) -> None:
        self._others = set(active_children())
        self._executor = ProcessPoolExecutor(
            width, mp_context=get_context("spawn"), initializer=_prepare_worker
        )

    def submit(self, function: Callable[..., Result], *args: Any) -> Future[Result]:
        """Have `function(*args)` called by one of them; a broken pool shows in the future."""
        with _interrupts_held_back():  # workers start here and inherit it: Ctrl-C is this process's business
            try:
                return self._executor.submit(function, *args)
            except BrokenProcessPool as error:
                broken: Future[Result] = Future()
                broken.set_exception(error)
                return broken

    def close(self, kill: bool) -> None:
        """End them; with `kill`, without waiting for what they are doing."""
        if kill:
            for process in set(active_children()) - self._others:
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)


class ProcessPool:
    """Runs tasks in processes of this machine."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.is_broken = False
        self._workers = Workers(width)
        self._tasks: dict[Future[Outcome], Task] = {}

    @property
    def in_flight(self) -> int:
        """Number of tasks it holds."""
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        """Send the task to a worker."""
        self._tasks[self._workers.submit(convert_scene, task)] = task

    def next_outcome(self) -> Outcome:
        """Wait for a worker; if one died, every task that was running is reported as lost."""
        done, _ = wait(self._tasks, return_when=FIRST_COMPLETED)
        future = min(done, key=lambda item: self._tasks[item].ref.id)
        task = self._tasks.pop(future)
        try:
            return future.result()
        except BrokenProcessPool:
            self.is_broken = True
            return Outcome(task.ref.id, task.ref.num_bytes, lost_worker(task.ref.id))

    def close(self, kill: bool) -> None:
        """End the workers."""
        self._workers.close(kill)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    """Run in every worker as it starts."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)  # the pool is the parallelism; threads of its own would only compete


def _die_with(sentinel: Any) -> None:
    """End this worker when the process that started it is gone, even by kill -9."""
    connection.wait([sentinel])
    os._exit(1)


def _knock(address: str) -> None:
    """Connect to a cluster's port, if an address has one: Ray itself tries again for minutes.

    Raises:
        OSError: Nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


class RayPool:
    """Sends tasks to a Ray cluster that has datakit installed and sees the folders at the same paths."""

    def __init__(self, address: str, width: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "Ray is not installed", where="--ray", mend="pip install 'datakit[ray]'"
            ) from error
        self._ray = ray
        try:
            _knock(address)
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
            )
        except Exception as error:  # ray raises its own kinds, which differ between versions
            raise UsageError(
                "The Ray cluster cannot be reached",
                where=f"--ray {address}",
                expected="the address of a running cluster, or 'local'",
                found=error,
            ) from error
        self.width = width
        self.is_broken = False
        self._function = ray.remote(num_cpus=1, max_retries=0)(convert_scene)
        self._tasks: dict[Any, Task] = {}

    @property
    def in_flight(self) -> int:
        """Number of tasks it holds."""
        return len(self._tasks)

    def submit(self, task: Task) -> None:
        """Send the task to the cluster."""
        self._tasks[self._function.remote(task)] = task

    def next_outcome(self) -> Outcome:
        """Wait for the cluster."""
        (done, *_), _ = self._ray.wait(list(self._tasks), num_returns=1)
        task = self._tasks.pop(done)
        try:
            outcome: Outcome = self._ray.get(done)
        except self._ray.exceptions.RayError:
            return Outcome(task.ref.id, task.ref.num_bytes, lost_worker(task.ref.id))
        return outcome

    def close(self, kill: bool) -> None:
        """Cancel what runs and leave the cluster."""
        if kill:
            for handle in self._tasks:
                self._ray.cancel(handle, force=True)
        self._ray.shutdown()


def make_pool(num_tasks: int, workers: int, ray: str | None, isolated: bool) -> Pool:
    """Choose where tasks run.

    Args:
        num_tasks: How many there will be.
        workers: How many at once.
        ray: Address of a Ray cluster ("local" starts one here); None for this machine's own processes.
        isolated: Never in this process.

    Raises:
        UsageError: Fewer than one worker, Ray is not installed, or no cluster answers.
    """
    if workers < 1:
        raise UsageError("There must be at least one worker", where="--workers", found=workers)
    if ray is not None:
        return RayPool(ray, workers)
    width = min(workers, num_tasks)
    return LocalPool() if width <= 1 and not isolated else ProcessPool(width)
