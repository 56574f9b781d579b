"""Split photos into windows of which each shows one place, for sets of photos too long for one window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError

#: (the photo that it was grown from, all its photos ascending)
PhotoWindow = tuple[int, tuple[int, ...]]


def split_photos(links: NDArray[np.uint8], most: int, new: int) -> list[PhotoWindow]:
    """Put every photo into a window with photos that show what it shows.

    Photos are linked where `links` is above 0. A linked piece with more than `most` photos is covered by windows of
    `most` photos, each linked in itself. Such a window starts beside those before it, from the photo with the least
    weight left towards photos that are in no window yet: one at the edge. The next photo is always the one that would
    lose the largest share of what it has left if it stayed outside (of several, the one with the largest weight to
    the window); growing by weight alone leaves photos behind between the windows, which then need windows of their
    own. When `new` photos are in, or no linked photo is left, the window is filled with the photos of earlier windows
    that have the largest weight to it. Pieces that fit a window are never cut; they share windows, the largest piece
    first, each in the first window with room.

    Everything is counted in integers and ties go to the lower number: the result is the same on every machine.

    Args:
        links: (F, F), the same in both directions, 0 for none; the diagonal is not read.
        most: Photos of a window.
        new: Photos of a window that are in no window before it (all of the first one of a piece are); fewer than
            `most` make windows that overlap.

    Returns:
        The windows, ascending by the photo they were grown from, which is another one for each. The cost is
        quadratic in F.

    Raises:
        UsageError: The links are not square, or a number is not positive.

    >>> two = np.kron(np.ones((3, 3), np.uint8), np.eye(2, dtype=np.uint8))  # even and odd photos
    >>> split_photos(two, 4, 4)
    [(0, (0, 2, 4)), (1, (1, 3, 5))]
    """
    if links.ndim != 2 or links.shape[0] != links.shape[1] or most < 1 or new < 1:
        raise UsageError(
            "Photos cannot be split", expected="(F, F) links, numbers from 1", found=(links.shape, most, new)
        )
    weights = links.copy()
    np.fill_diagonal(weights, 0)
    pieces = _pieces(weights)
    out = _share_windows([piece.tolist() for piece in pieces if piece.size <= most], most)
    for piece in pieces:
        if piece.size > most:
            for grown in _cover(weights[np.ix_(piece, piece)], most, min(new, most)):
                out.append((int(piece[grown[0]]), tuple(sorted(piece[grown].tolist()))))
    return sorted(out)


def _pieces(weights: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """List photos that are linked directly or over others, ascending; pieces by their lowest photo."""
    out = []
    is_left = np.ones(len(weights), bool)
    for first in range(len(weights)):
        if not is_left[first]:
            continue
        reached = np.arange(len(weights)) == first
        newest = reached
        while newest.any():
            is_left &= ~newest
            newest = weights[newest].any(axis=0) & is_left
            reached |= newest
        out.append(np.flatnonzero(reached))
    return out


def _share_windows(pieces: Sequence[list[int]], most: int) -> list[PhotoWindow]:
    """First fit, the largest piece first, of equal ones that with the lowest photo."""
    windows: list[list[int]] = []
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece[0])):
        roomy = next((window for window in windows if len(window) + len(piece) <= most), None)
        if roomy is None:
            windows.append(list(piece))
        else:
            roomy.extend(piece)
    return [(min(window), tuple(sorted(window))) for window in windows]


def _cover(weights: NDArray[np.uint8], most: int, new: int) -> list[list[int]]:
    """Cover one linked piece of more than `most` photos; each window in the order in which it grew."""
    piece = _Piece(weights)
    windows: list[list[int]] = []
    while piece.is_free.any():
        limit = new if windows else most
        piece.open_window()
        while len(piece.window) < most:
            photo = piece.next_free() if piece.num_new < limit else None
            piece.add(piece.next_packed() if photo is None else photo)
        windows.append(piece.window)
    return windows


class _Piece:
    """A linked piece while windows are cut from it.

    Attributes:
        is_free: (F,) photos that are in no window.
        window: The photos of the open one.
        num_new: How many of them were free.
    """

    def __init__(self, weights: NDArray[np.uint8]) -> None:
        self._weights = weights
        self._left = weights.sum(axis=1, dtype=np.int64)  # towards free photos
        self._packed = np.zeros(len(weights), np.int64)  # towards the others
        self.is_free = np.ones(len(weights), bool)

    def open_window(self) -> None:
        """Start a window at an edge of what is free, beside what is packed."""
        starts = np.flatnonzero(self.is_free & (self._packed > 0))
        if not starts.size:  # nothing is packed yet: the piece is linked
            starts = np.flatnonzero(self.is_free)
        self.window: list[int] = []
        self.num_new = 0
        self._inside = np.zeros(len(self._weights), np.int64)
        self._can_fill = ~self.is_free
        self.add(int(starts[np.argmin(self._left[starts])]))

    def next_free(self) -> int | None:
        """Find the free photo that would lose most by staying outside; None where none is linked to the window."""
        linked = np.flatnonzero(self.is_free & (self._inside > 0))
        if not linked.size:
            return None
        inside = self._inside[linked]
        share = inside / (inside + self._left[linked])
        return int(linked[np.argmax(np.where(share == share.max(), inside, 0))])

    def next_packed(self) -> int:
        """Find the photo of earlier windows with the largest weight to this one.

        There is one: the piece is linked and has more photos than the window, and none of them that is linked to the
        window is free, or the window began beside a packed one.
        """
        return int(np.argmax(np.where(self._can_fill, self._inside, -1)))

    def add(self, photo: int) -> None:
        """Put a photo into the open window."""
        row = self._weights[photo]
        if self.is_free[photo]:
            self.is_free[photo] = False
            self.num_new += 1
            self._left -= row
            self._packed += row
        self._can_fill[photo] = False
        self.window.append(photo)
        self._inside += row
