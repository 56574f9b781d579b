"""The stream: batches in the order's sequence, made ahead by worker processes."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datakit.errors import DatakitError, UsageError

from .batch import Arrays, block_size, fields, lay_out, nest, row_of
from .clip import Scratch
from .ledger import Ledger
from .order import Order, Sample, next_hash
from .params import AugmentParams, ClipParams
from .ring import Ring
from .sample import Outcome, make_sample
from .sets import Source, as_list, open_sources, requested_shares, take_census
from .workers import Job, Pool

STATE_VERSION = 1
#: Batches that a user may hold without a copy being made: the one in use, and the next one while it is asked for.
_LEASES = 2
_META = ("key", "dataset", "scale", "licence", "certificate", "supervision")

Batch = dict[str, Any]


@dataclass
class _Pending:
    """A batch in the making."""

    step: int
    samples: list[Sample]
    slots: list[int]
    block: int
    outcomes: dict[int, Outcome]

    @property
    def is_done(self) -> bool:
        return len(self.outcomes) == len(self.slots)


class Stream:
    """An endless iterator of batches, or of `num_steps`; see `stream` for the arguments.

    Attributes:
        ledger: What this rank was given.
        step: Steps handed out; the next batch is this one.
        order_hash: Running hash over all samples of all ranks in all steps handed out.
        every: Only each so many-th step is made; for loaders that deal steps out to processes of their own.
    """

    def __init__(
        self,
        sources: Source | Sequence[Source],
        mixture: Mapping[str, float] | None,
        clip: ClipParams,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
        read_ahead: int,
        failure_budget: int,
        num_steps: int | None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise UsageError("rank must be below world_size", found=f"rank {rank} of {world_size}")
        if batch_size % world_size:
            raise UsageError(
                "The global batch must divide among the ranks",
                expected=f"a multiple of {world_size}",
                found=batch_size,
            )
        if workers < 0 or read_ahead < 1 or failure_budget < 0:
            raise UsageError("workers and failure_budget must be at least 0, read_ahead at least 1")
        self._sources = as_list(sources)
        self._sets = open_sources(self._sources)
        self._order = Order(take_census(self._sets), mixture, seed, batch_size, clip)
        self._clip, self._rank, self._world_size = clip, rank, world_size
        self._budget, self._num_steps = failure_budget, num_steps
        self.ledger = Ledger(
            self._order.identity,
            requested_shares(self._sets, self._order.requested()),
            [len(each.columns["num_frames"]) for each in self._sets],
        )
        self.step, self.order_hash, self.every = 0, self._order.first_hash, 1
        self._rows = batch_size // world_size
        self._table = fields(clip)
        self._workers, self._read_ahead = workers, read_ahead if workers else 1
        self._pending: deque[_Pending] = deque()
        self._jobs: dict[int, tuple[_Pending, int]] = {}
        self._ticket = 0
        self._scratch = Scratch()
        self._ring: Ring | None = None
        self._pool: Pool | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._num_steps is not None and self.step >= self._num_steps:
            self.close()
            raise StopIteration
        try:
            self._start()
            self._fill()
            head = self._pending[0]
            while not head.is_done:
                self._collect()
            self._pending.popleft()
            return self._hand_out(head)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is: one integer and a hash, and what they are valid for."""
        return {
            "version": STATE_VERSION,
            "step": self.step,
            "order_hash": self.order_hash,
            "order": self._order.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, by any number of ranks and workers.

        Raises:
            UsageError: The state belongs to another order; the message names what differs.
        """
        theirs, ours = state.get("order", {}), self._order.identity
        differing = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        if state.get("version") != STATE_VERSION or differing:
            raise UsageError(
                "The state belongs to another stream",
                where=", ".join(differing) or "version",
                expected={name: theirs.get(name) for name in differing} or STATE_VERSION,
                found={name: ours.get(name) for name in differing} or state.get("version"),
                mend="stream the same shards with the same mixture, seed, batch size and clip parameters",
            )
        self.close()
        self.step, self.order_hash = int(state["step"]), str(state["order_hash"])

    def skip(self, steps: int) -> None:
        """Move on without making anything; the running hash goes over what is skipped. Before iteration starts."""
        for _ in range(steps):
            self.order_hash = next_hash(self.order_hash, self._order.batch(self.step))
            self.step += 1

    def close(self) -> None:
        """End the workers and free the memory; iterating again starts them anew. Batches still held stay valid."""
        if self._end is not None:
            self._end()
        self._ring = self._pool = self._end = None
        self._pending.clear()
        self._jobs.clear()

    def _start(self) -> None:
        if self._ring is not None:
            return
        size = block_size(self._table, self._rows)
        self._ring = Ring(self._read_ahead + _LEASES, size, is_shared=self._workers > 0)
        self._end = weakref.finalize(self, _shut_down, self._ring, None)
        if self._workers:
            self._pool = Pool(self._workers, self._sources, self._clip, self._rows, self._ring.name, size)
            self._end.detach()
            self._end = weakref.finalize(self, _shut_down, self._ring, self._pool)

    def _fill(self) -> None:
        """Begin as many of the next steps as read-ahead and memory allow."""
        assert self._ring is not None  # for the type checker
        while len(self._pending) < self._read_ahead:
            step = self.step + len(self._pending) * self.every
            if self._num_steps is not None and step >= self._num_steps:
                return
            block = self._ring.take()
            if block is None:
                return
            slots = self._order.slots_of(step, self._rank, self._world_size)
            pending = _Pending(step, self._order.batch(step), slots, block, {})
            self._pending.append(pending)
            for row, slot in enumerate(slots):
                if self._pool is not None:
                    self._jobs[self._ticket] = (pending, row)
                    self._pool.submit(Job(self._ticket, block, row, pending.samples[slot]))
                    self._ticket += 1

    def _collect(self) -> None:
        if self._pool is not None:
            for ticket, outcome in self._pool.results():
                pending, row = self._jobs.pop(ticket)
                pending.outcomes[row] = outcome
            return
        pending = self._pending[0]
        arrays = self._arrays(pending.block)
        for row, slot in enumerate(pending.slots):
            pending.outcomes[row] = make_sample(
                self._sets, pending.samples[slot], self._clip, row_of(arrays, row), self._scratch
            )

    def _arrays(self, block: int) -> Arrays:
        assert self._ring is not None  # for the type checker
        return lay_out(self._ring.at(block), self._table, self._rows)

    def _hand_out(self, done: _Pending) -> Batch:
        assert self._ring is not None  # for the type checker
        outcomes = [done.outcomes[row] for row in range(self._rows)]
        for slot, outcome in zip(done.slots, outcomes, strict=True):
            self.ledger.add(done.samples[slot], outcome)
            if outcome.error is not None and self.ledger.num_failed > self._budget:
                raise self._over_budget(outcome.error)
        if self._ring.num_leased < _LEASES:
            arrays = lay_out(self._ring.lease(done.block), self._table, self._rows)
        else:
            # Older batches are still held: this one is copied so that the ring does not run dry.
            arrays = {name: array.copy("K") for name, array in self._arrays(done.block).items()}
            self._ring.give_back(done.block)
        batch = nest(arrays)
        batch["meta"] |= {name: [outcome.meta[name] for outcome in outcomes] for name in _META}
        self.ledger.went(self._rank, self._world_size, done.step)
        self.order_hash = next_hash(self.order_hash, done.samples)
        self.step = done.step + 1
        self.skip(self.every - 1)
        return batch

    def _over_budget(self, error: DatakitError) -> DatakitError:
        return type(error)(
            f"{error.what}; {self.ledger.num_failed} failed sample(s) are over the budget of {self._budget}",
            where=error.where,
            expected=error.expected,
            found=error.found,
            mend=error.mend
            or "datakit verify names what is damaged; failure_budget allows a number of failures",
        )


def _shut_down(ring: Ring, pool: Pool | None) -> None:
    if pool is not None:
        pool.close()
    ring.close()


def stream(
    sources: Source | Sequence[Source],
    mixture: Mapping[str, float] | None = None,
    *,
    batch_size: int,
    clip_frames: int = 48,
    size: int = 256,
    num_queries: int = 2048,
    sampler: str = "paper",
    seed: int = 0,
    augment: AugmentParams | None = None,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    read_ahead: int = 2,
    failure_budget: int = 0,
    num_steps: int | None = None,
) -> Stream:
    """Stream clips and point queries.

    Args:
        sources: Shard sets: paths, fsspec URLs or open sets; one or several.
        mixture: Dataset -> weight, in any unit; None shows every clip equally often.
        batch_size: Samples of one step over all ranks.
        clip_frames: T; shorter sources are padded and masked by `frame_mask`.
        size: Side S of the network's square frames.
        num_queries: N.
        sampler: Name of a sampler of `datakit.queries`.
        seed: Any integer.
        augment: How clips are varied; None for `AugmentParams()`, the paper's recipe.
        rank: Which of `world_size` consumers this is.
        world_size: Consumers that share each global batch; it must divide it.
        workers: Processes that decode; 0 for this one. With any, a script needs the usual
            `if __name__ == "__main__":`, since workers are spawned.
        read_ahead: Batches that workers make ahead. Memory is read_ahead + 2 batches of this rank.
        failure_budget: Samples of this rank that may fail. A failed sample's masks are all false and
            `meta.valid` is false; one over the budget raises its error. It is never replaced by another.
        num_steps: Steps to stop after, counted from the stream's beginning; None for no end.

    Returns:
        An iterator of batches of numpy arrays, B = batch_size / world_size:

        video (B, T, 3, S, S) uint8 RGB; frame_mask (B, T) bool; times (B, T) float64 s; aspect_ratio (B,) float32
        W/H of what the square shows; query: uv (B, N, 2) float32, t_src, t_tgt, t_cam (B, N) int64, patch
        (B, N, 3, 9, 9) uint8, kind (B, N) uint8; target: xyz (B, N, 3), uv (B, N, 2), displacement, normal (B, N, 3)
        float32, visible (B, N) bool; mask: one (B, N) bool per target; camera: intrinsics (B, T, 3, 3) of the
        square, corner-origin pixels, world_from_cam (B, T, 4, 4), pose_is_known (B, T); meta: key, dataset, scale,
        licence, certificate, supervision (lists), step, slot, valid (B,), frame_indices (B, T).

        Units, frames and rules are those of `schemas/query.yaml`. A batch stays valid as long as it is held. `video`
        and `patch` have their colours innermost in memory.

    Raises:
        UsageError: An argument does not fit.
        ShardError: A manifest or index is damaged.

    Example:
        >>> for batch in stream("shards", {"kubric": 3, "waymo": 1}, batch_size=8, workers=4):  # doctest: +SKIP
        ...     train(batch)
    """
    clip = ClipParams(clip_frames, size, num_queries, sampler, augment or AugmentParams())
    return Stream(
        sources,
        mixture,
        clip,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        workers=workers,
        read_ahead=read_ahead,
        failure_budget=failure_budget,
        num_steps=num_steps,
    )
