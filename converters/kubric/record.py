"""Typed access to the features of one MOVi record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import numbers
from datakit.errors import FormatError

from .example import Feature, decode_floats, decode_ints


@dataclass(frozen=True)
class MoviRecord:
    """A parsed record.

    Attributes:
        features: Key -> feature.
        where: File and byte of the record, for errors.
    """

    features: Mapping[str, Feature]
    where: str

    def place(self, key: str) -> str:
        """Name a feature in errors."""
        return f"{self.where}: {key}"

    def has(self, key: str) -> bool:
        """Tell whether the record has values for a key (TFDS leaves empty lists out)."""
        return key in self.features and bool(self.features[key].chunks)

    def _feature(self, key: str, kind: str) -> Feature:
        feature = self.features.get(key)
        if feature is None:
            raise FormatError(
                "A feature is missing from the record.",
                where=self.where,
                expected=key,
                found=sorted(self.features),
            )
        if feature.kind not in (kind, ""):
            raise FormatError(
                "A feature has the wrong type.", where=self.place(key), expected=kind, found=feature.kind
            )
        return feature

    def floats(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Read a float list of a known shape, one axis of which may be -1; errors as `numbers`."""
        flat = decode_floats(self._feature(key, "floats"), self.place(key))
        full = self._resolve(key, flat.size, shape)
        return numbers(flat.reshape(full), full, self.place(key))

    def ints(self, key: str, shape: tuple[int, ...], dtype: type[np.integer] = np.int64) -> NDArray[Any]:
        """Read an int64 list of a known shape; one axis may be -1."""
        flat = decode_ints(self._feature(key, "ints"), dtype, self.place(key))
        return flat.reshape(self._resolve(key, flat.size, shape))

    def scalar(self, key: str, kind: str) -> float:
        """Read a single "floats" or "ints" value."""
        return float((self.floats if kind == "floats" else self.ints)(key, (1,))[0])

    def texts(self, key: str) -> list[str]:
        """Read a bytes list as UTF-8."""
        return [
            bytes(chunk).decode("utf-8", errors="replace") for chunk in self._feature(key, "bytes").chunks
        ]

    def text(self, key: str) -> str:
        """Read the only or first value of a bytes list."""
        if not self._feature(key, "bytes").chunks:
            raise FormatError("A feature has no value.", where=self.place(key), expected="a text")
        return self.texts(key)[0]

    def images(self, key: str, num_frames: int) -> list[memoryview]:
        """Read one encoded image per frame.

        Raises:
            FormatError: There are more or fewer.
        """
        chunks = self._feature(key, "bytes").chunks
        if len(chunks) != num_frames:
            raise FormatError(
                "A layer has another number of frames than the clip.",
                where=self.place(key),
                expected=num_frames,
                found=len(chunks),
            )
        return chunks

    def _resolve(self, key: str, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        known = math.prod(n for n in shape if n >= 0)
        free = size // known if known and size % known == 0 else 0
        full = tuple(free if n < 0 else n for n in shape)
        if math.prod(full) != size:
            raise FormatError(
                "A feature has the wrong number of values.",
                where=self.place(key),
                expected=f"shape {shape}",
                found=size,
            )
        return full
