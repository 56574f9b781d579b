"""What a user may choose when converting Dynamic Replica."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, PositiveFloat
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the Dynamic Replica converter.

    Attributes:
        views: Both eyes as two views of one scene, or the left one only.
        broken_depth: A left frame's depth is left unknown where it misses the trajectories' visible vertices by more
            than this share of z at the median.
        still_step: Metres; vertices that never move further than this from one frame to the next stand still, and
            an instance all of whose vertices do is static.
    """

    views: Literal["both", "left"] = "both"
    broken_depth: PositiveFloat = 0.05
    still_step: PositiveFloat = 1e-4
