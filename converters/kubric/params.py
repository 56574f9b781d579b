"""What a user may choose when converting Kubric."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the Kubric converter.

    Attributes:
        render_size: Width in pixels that the clips of TFDS records were rendered at, which decides where the
            picked samples of downscaled configs sit. "auto" measures it from the object coordinates.
        check_crc: Whether the masked CRC-32C of each TFRecord payload is checked.
        frame_rate: Frames per second of TFDS records, which do not store it (12 in all published sets).
        allow_missing_shards: Convert the shards that are there when some of a split's shards are not.
    """

    render_size: Literal["auto"] | PositiveInt = "auto"
    check_crc: bool = True
    frame_rate: PositiveFloat = 12.0
    allow_missing_shards: bool = False
