"""The order of the stream as a pure function of (manifests, mixture, seed, parameters, step).

Nothing in here knows of ranks, workers or time. Every choice comes from a counter-based generator (Philox) keyed by
a hash of (seed, step, purpose), one row a slot, or of (seed, step, slot, purpose): any step can be drawn on its own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datakit.covisibility import draw_set, unpack_overlap
from datakit.errors import UsageError

from .params import AugmentParams, ClipParams
from .shares import Shares, parts_of
from .shuffle import shuffled

#: Changes when the same seed would give another stream.
ORDER_VERSION = 1

#: Random numbers that `choose_look` takes.
LOOK_DRAWS = 12

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Census:
    """What the order must know of all clips; one row a clip, sets one after the other.

    Attributes:
        manifests: sha256 of each set's manifest, in the order the sets were given.
        datasets: Names, sorted.
        dataset: (C,) index into `datasets`.
        set_index: (C,) which set the clip is in.
        clip_index: (C,) its number within that set.
        num_frames: (C,) frames it has.
        is_unordered: (C,) True for photos without an order in time (`time_kind: set`).
        overlaps: Of each set, what its index says of which photos overlap: codes of all clips one after the other,
            and (clips + 1,) where each clip's begin; None where it says nothing.
    """

    manifests: tuple[str, ...]
    datasets: tuple[str, ...]
    dataset: Index
    set_index: Index
    clip_index: Index
    num_frames: Index
    is_unordered: NDArray[np.bool_]
    overlaps: tuple[tuple[NDArray[np.uint8], Index] | None, ...] = ()

    def overlap_codes(self, row: int) -> NDArray[np.uint8] | None:
        """Return the `datakit.covisibility.pack_overlap` of a clip's photos; None where it is not known."""
        place = int(self.set_index[row])
        known = self.overlaps[place] if place < len(self.overlaps) else None
        if known is None:
            return None
        first, last = known[1][int(self.clip_index[row]) :][:2]
        return known[0][first:last] if last > first else None


class Look(NamedTuple):
    """How a clip is cropped and coloured, in numbers that do not depend on its size.

    Attributes:
        area: Share of the area that is kept.
        aspect: Place in the range of aspect ratios that fit the image, 0 to 1, logarithmic.
        left: Place in the range of positions that fit, 0 to 1.
        top: Likewise.
        brightness: Factor.
        contrast: Factor.
        saturation: Factor; 0 where the colour is dropped.
        hue: Turns.
        blur_sigma: Network pixels; 0 for none.
    """

    area: float
    aspect: float
    left: float
    top: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur_sigma: float


@dataclass(frozen=True)
class Sample:
    """One place of the global stream, complete but for the bytes.

    Attributes:
        step: Global step.
        slot: Place in the global batch.
        dataset: Name.
        set_index: Which shard set.
        clip_index: Which clip of it.
        epoch: How often the whole dataset was shown before.
        frames: Frames of the stored clip, distinct and ascending.
        look: Crop and colours.
        query_key: Key of the generator that draws the queries.
        frames_by: What chose the frames: "stride", "covisibility" or "chance"; it says nothing new to the digest.
    """

    step: int
    slot: int
    dataset: str
    set_index: int
    clip_index: int
    epoch: int
    frames: tuple[int, ...]
    look: Look
    query_key: int
    frames_by: str = "stride"

    def digest(self) -> bytes:
        """Return 32 bytes that change with anything about the sample."""
        numbers = struct.pack(
            f"<6q{len(self.frames)}q9d",
            self.step, self.slot, self.set_index, self.clip_index, self.epoch, len(self.frames),
            *self.frames,
            *self.look,
        )  # fmt: skip
        return hashlib.sha256(
            numbers + self.query_key.to_bytes(16, "little") + self.dataset.encode()
        ).digest()


def generator(key: int) -> np.random.Generator:
    """Return the generator of a 128-bit key."""
    return np.random.Generator(np.random.Philox(key=key))


def draw_key(seed: int, step: int, slot: int, purpose: str) -> int:
    """Return the 128-bit key of one purpose of one sample."""
    text = f"{ORDER_VERSION}/{seed}/{step}/{slot}/{purpose}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


class Order:
    """All samples of all steps.

    Args:
        census: The clips.
        mixture: Dataset -> weight; None weighs each dataset by its number of clips.
        seed: Any integer.
        batch_size: Samples of one global step, over all ranks.
        clip: What a sample is made of.

    Raises:
        UsageError: No clips, or a mixture that does not fit.
    """

    def __init__(
        self,
        census: Census,
        mixture: Mapping[str, float] | None,
        seed: int,
        batch_size: int,
        clip: ClipParams,
    ) -> None:
        if batch_size < 1:
            raise UsageError("batch_size must be at least 1", found=batch_size)
        clips_of = {name: np.flatnonzero(census.dataset == at) for at, name in enumerate(census.datasets)}
        clips_of = {name: rows for name, rows in clips_of.items() if len(rows)}
        if not clips_of:
            raise UsageError("There are no clips to stream")
        weights = mixture if mixture is not None else {name: len(rows) for name, rows in clips_of.items()}
        self.parts = parts_of(weights, list(clips_of))
        self.seed, self.batch_size, self.clip, self.census = seed, batch_size, clip, census
        self._names = list(self.parts)
        self._clips = [clips_of[name] for name in self._names]
        self._shares = Shares(list(self.parts.values()), draw_key(seed, 0, 0, "mixture"))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything the order depends on, as JSON-able data."""
        return {
            "order_version": ORDER_VERSION,
            "manifests": list(self.census.manifests),
            "mixture": self.parts,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "clip": json.loads(json.dumps(asdict(self.clip))),
        }

    @property
    def first_hash(self) -> str:
        """The running hash before the first step: that of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def requested(self) -> dict[str, float]:
        """Return the share asked for of each dataset."""
        total = sum(self.parts.values())
        return {name: part / total for name, part in self.parts.items()}

    def batch(self, step: int) -> list[Sample]:
        """Return the samples of one global step, slot by slot."""
        first = step * self.batch_size
        counts = self._shares.counts_before(first)
        # One generator a purpose and step, one row a slot: a generator a sample costs ten times as much.
        looks = generator(draw_key(self.seed, step, 0, "look")).random((self.batch_size, LOOK_DRAWS)).tolist()
        strides = generator(draw_key(self.seed, step, 0, "frames")).random((self.batch_size, 2)).tolist()
        out = []
        for slot in range(self.batch_size):
            at = self._shares.dataset_at(first + slot)
            out.append(self._sample(step, slot, at, counts[at], looks[slot], strides[slot]))
            counts[at] += 1
        return out

    def slots_of(self, step: int, rank: int, world_size: int) -> list[int]:
        """Return which slots of a step a rank executes.

        The slots are dealt out anew each step: the mixture's regular pattern would otherwise give a rank the same
        dataset again and again, and ranks would wait for the one with the dearest clips.
        """
        each = self.batch_size // world_size
        dealt = generator(draw_key(self.seed, step, 0, "deal")).permutation(self.batch_size)
        return sorted(int(slot) for slot in dealt[rank * each : (rank + 1) * each])

    def _sample(
        self, step: int, slot: int, at: int, occurrence: int, look: list[float], stride: list[float]
    ) -> Sample:
        rows, name = self._clips[at], self._names[at]
        epoch, place = divmod(occurrence, len(rows))
        row = rows[shuffled(place, len(rows), f"{self.seed}/{name}/{epoch}")]
        num_frames, wanted = int(self.census.num_frames[row]), self.clip.clip_frames
        if not self.census.is_unordered[row]:
            frames, how = choose_frames(num_frames, wanted, self.clip.augment.max_stride, stride), "stride"
        else:
            key, codes = draw_key(self.seed, step, slot, "photos"), self.census.overlap_codes(row)
            if codes is not None and codes.any():
                overlap = unpack_overlap(codes, num_frames)
                frames, how = (
                    choose_covisible(overlap, wanted, key, self.clip.augment.set_overlap),
                    "covisibility",
                )
            else:
                frames, how = choose_photos(num_frames, wanted, key), "chance"
        return Sample(
            step=step,
            slot=slot,
            dataset=name,
            set_index=int(self.census.set_index[row]),
            clip_index=int(self.census.clip_index[row]),
            epoch=epoch,
            frames=frames,
            look=choose_look(self.clip.augment, look),
            query_key=draw_key(self.seed, step, slot, "queries"),
            frames_by=how,
        )


def choose_frames(num_frames: int, wanted: int, max_stride: int, draws: Sequence[float]) -> tuple[int, ...]:
    """Choose distinct frames in order at one stride; never more than there are.

    Args:
        num_frames: Frames of the source.
        wanted: Frames of the clip.
        max_stride: Longest stride; one that leaves no room for all frames wanted is never drawn.
        draws: Two numbers in [0, 1): for the stride and for the first frame.
    """
    count = min(num_frames, wanted)
    longest = min((num_frames - 1) // (count - 1), max_stride) if count > 1 else 1
    stride = 1 + int(draws[0] * longest)
    start = int(draws[1] * (num_frames - (count - 1) * stride))
    return tuple(range(start, start + (count - 1) * stride + 1, stride))


def choose_photos(num_photos: int, wanted: int, key: int) -> tuple[int, ...]:
    """Choose distinct photos of a set without an order in time, ascending by number."""
    chosen = generator(key).choice(num_photos, min(num_photos, wanted), replace=False)
    return tuple(sorted(chosen.tolist()))


def choose_covisible(
    overlap: NDArray[np.float32], wanted: int, key: int, limits: tuple[float, float]
) -> tuple[int, ...]:
    """Choose distinct photos that show one place, ascending by number; fewer than wanted where no more do.

    Args:
        overlap: (F, F), the same in both directions.
        wanted: Photos of the clip.
        key: Of the generator.
        limits: Least overlap with some chosen photo, most with any.
    """
    least, most = limits
    rng = generator(key)
    others = np.where(np.eye(len(overlap), dtype=bool), 0, overlap)
    # A photo that overlaps with none would stay alone.
    starts = np.flatnonzero(((others >= least) & (others <= most) & (others > 0)).any(axis=1))
    first = int(starts[rng.integers(len(starts))]) if len(starts) else int(rng.integers(len(overlap)))
    return tuple(sorted(draw_set(overlap, wanted, rng, least=least, most=most, first=first).tolist()))


def choose_look(augment: AugmentParams, draws: Sequence[float]) -> Look:
    """Turn `LOOK_DRAWS` numbers in [0, 1) into crop and colours."""
    zoom, area, aspect, left, top, bright, contrast, saturation, hue, drop, blur, sigma = draws

    def within(limits: tuple[float, float], place: float) -> float:
        return limits[0] + (limits[1] - limits[0]) * place

    is_zoom = zoom < augment.zoom_probability
    return Look(
        area=within(augment.zoom_area if is_zoom else augment.crop_area, area),
        aspect=aspect,
        left=left,
        top=top,
        brightness=within(augment.brightness, bright),
        contrast=within(augment.contrast, contrast),
        saturation=0.0 if drop < augment.colour_drop_probability else within(augment.saturation, saturation),
        hue=within(augment.hue, hue),
        blur_sigma=within(augment.blur_sigma, sigma) if blur < augment.blur_probability else 0.0,
    )


def next_hash(before: str, samples: Sequence[Sample]) -> str:
    """Return the running hash after one more step: sha256 over the hash before and every sample's digest."""
    return hashlib.sha256(bytes.fromhex(before) + b"".join(sample.digest() for sample in samples)).hexdigest()
