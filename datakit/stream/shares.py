"""Which dataset each place of the global stream belongs to: exact shares, any place at once, no state.

Places walk round a circle of 10^8 units in steps of about 0.617 of it; each dataset owns an arc as long as its
weight. 1,000 consecutive places stand almost evenly, 1/1,000 apart, so an arc holds its share of them to within
one. A small drift per step lets shares that are no multiple of 1/1,000 come true in the long run; it is bounded
such that it never costs a second sample in a window of 1,000.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate

from datakit.errors import UsageError

#: Shares are exact to one sample over any window of this many samples.
WINDOW = 1000
#: Weights are rounded to this fraction of the whole.
RESOLUTION = 100_000
_CIRCLE = 10**8
_PART = _CIRCLE // RESOLUTION
_SLOT = _CIRCLE // WINDOW
#: Coprime to WINDOW, close to the golden section: neighbours in the stream are far apart on the circle.
_STRIDE = 617


def parts_of(weights: Mapping[str, float], known: Sequence[str]) -> dict[str, int]:
    """Round weights to integer parts that sum to `RESOLUTION` (largest remainders get what is left over).

    Args:
        weights: Dataset -> weight; any positive scale. A weight of zero leaves the dataset out.
        known: Datasets that exist.

    Returns:
        Dataset -> parts, sorted by name.

    Raises:
        UsageError: Unknown dataset, weight not finite or negative or too small, or no weight at all.

    >>> parts_of({"a": 2, "b": 1}, ["a", "b"])
    {'a': 66667, 'b': 33333}
    """
    for name, weight in weights.items():
        if name not in known:
            near = get_close_matches(name, known)
            raise UsageError(
                "The mixture names a dataset that is not in the shards",
                expected=", ".join(known),
                found=name,
                mend=f"did you mean {near[0]}?" if near else None,
            )
        if not math.isfinite(weight) or weight < 0:
            raise UsageError("A weight must be finite and not negative", where=name, found=weight)
    total = math.fsum(weights.values())
    if total <= 0:
        raise UsageError("The mixture has no weight", found=dict(weights))
    exact = {name: weights[name] / total * RESOLUTION for name in sorted(weights) if weights[name] > 0}
    parts = {name: int(value) for name, value in exact.items()}
    left_over = RESOLUTION - sum(parts.values())
    for name in sorted(exact, key=lambda name: (parts[name] - exact[name], name))[:left_over]:
        parts[name] += 1
    for name, count in parts.items():
        if not count:
            raise UsageError(
                "A weight is too small",
                where=name,
                expected=f"a share of {1 / RESOLUTION}",
                found=exact[name],
            )
    return parts


class Shares:
    """The datasets of all places of the stream.

    Args:
        parts: Integer parts per dataset; their sum is `RESOLUTION`.
        start: Where on the circle place 0 is; any integer.
    """

    def __init__(self, parts: Sequence[int], start: int = 0) -> None:
        if sum(parts) != RESOLUTION or min(parts) < 1:
            raise UsageError("Parts must be positive and sum to the whole", expected=RESOLUTION, found=parts)
        self._ends = [end * _PART for end in accumulate(parts)]
        self._start = start % _CIRCLE
        self._step = _STRIDE * _SLOT + _drift(parts)

    def dataset_at(self, place: int) -> int:
        """Return the index of the dataset that place (from 0) belongs to."""
        return bisect_right(self._ends, (self._start + place * self._step) % _CIRCLE)

    def counts_before(self, place: int) -> list[int]:
        """Return how many of the places 0 to place - 1 belong to each dataset, in logarithmic time."""
        # floor((x - lo) / C) - floor((x - hi) / C) is 1 exactly where x mod C lies in [lo, hi).
        sums = [
            _floor_sum(place, _CIRCLE, self._step, self._start - edge + _CIRCLE) for edge in (0, *self._ends)
        ]
        return [low - high for low, high in zip(sums, sums[1:], strict=False)]


def _drift(parts: Sequence[int]) -> int:
    """Choose the drift per step, in units of the circle.

    With D the drift over a window and f an arc's length modulo one slot, the window's count stays within one of
    its share if D <= min(f, slot - f). The drift has no factor in common with the circle: all of it is walked.
    """
    per_slot = RESOLUTION // WINDOW
    rests = [part % per_slot for part in parts if part % per_slot]
    if not rests:
        return 0
    limit = min(min(rest, per_slot - rest) for rest in rests) * _PART
    return next(drift for drift in range(limit // (WINDOW - 1), 0, -1) if math.gcd(drift, 10) == 1)


def _floor_sum(count: int, divisor: int, slope: int, offset: int) -> int:
    """Return sum of floor((slope * i + offset) / divisor) for i in 0 to count - 1, by Euclid's algorithm."""
    total = 0
    while count > 0:
        total += count * (count - 1) // 2 * (slope // divisor) + count * (offset // divisor)
        slope, offset = slope % divisor, offset % divisor
        last = slope * count + offset
        count, offset = last // divisor, last % divisor
        slope, divisor = divisor, slope
        if divisor == 0:
            break
    return total
