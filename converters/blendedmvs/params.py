"""What a user may choose when converting BlendedMVS."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the BlendedMVS converter.

    Attributes:
        images: "blended" for the full pictures, "masked" for those that are black where there is no geometry.
    """

    images: Literal["blended", "masked"] = "blended"
