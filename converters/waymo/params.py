"""What a user may choose when converting Waymo."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the Waymo converter.

    Attributes:
        cameras: "all", or only the three forward ones.
        rectify: Undistort the pictures (they are then encoded anew) and move depth to match. The default keeps the
            source's bytes and the lens' coefficients.
        jpeg_quality: Of rectified pictures.
        box_margin: Metres by which a box is grown when points are assigned to it; negative shrinks it.
        drop_shadowed: Drop points among those of a nearer surface: the lidars look past edges that hide from a camera
            what lies behind them.
        check_crc: Whether the masked CRC-32C of each record's payload is checked.
    """

    cameras: Literal["all", "front"] = "all"
    rectify: bool = False
    jpeg_quality: Annotated[int, Ge(1)] = 95
    box_margin: float = 0.05
    drop_shadowed: bool = True
    check_crc: bool = True
