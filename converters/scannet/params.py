"""What a user may choose when converting ScanNet."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, PositiveFloat
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the ScanNet converter.

    Attributes:
        frame_rate: Frames per second where the source has no usable time stamps; 30 is the nominal rate of capture.
        timestamps: "auto" uses the colour time stamps of a .sens if they increase steadily, "never" does not.
    """

    frame_rate: PositiveFloat = 30.0
    timestamps: Literal["auto", "never"] = "auto"
