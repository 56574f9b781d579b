"""A keyed permutation of 0..n-1 that can be asked at any place, in no memory: a Feistel network that walks cycles."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_MASK = (1 << 64) - 1
_ROUNDS = 8


def shuffled(place: int, count: int, key: str) -> int:
    """Return which of `count` items stands at `place` of the order named by `key`.

    Args:
        place: 0 to count - 1.
        count: How many items.
        key: Name of the permutation.

    >>> sorted(shuffled(place, 10, "any") for place in range(10)) == list(range(10))
    True
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    item = place
    while True:  # the network permutes 4^half >= count items; those out of range are permuted again
        item = _permute(item, half, keys)
        if item < count:
            return item


def _permute(item: int, half: int, keys: tuple[int, ...]) -> int:
    mask = (1 << half) - 1
    left, right = item >> half, item & mask
    for key in keys:
        mixed = ((right ^ key) * 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9) & _MASK
        left, right = right, left ^ ((mixed >> 32) & mask)
    return (left << half) | right


@lru_cache(maxsize=256)
def _round_keys(key: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key.encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, len(digest), 8))
