"""What a user may choose when converting a COLMAP model."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the COLMAP converter.

    Attributes:
        images: Folder of the images below the root; "" finds the `images` folder nearest above the model.
        time_kind: "set" for photos without an order, "sequence" for the frames of a video.
        frame_rate: Frames per second of a sequence. Frame numbers are those in the image names where all have one.
        static: Whether nothing moves; False leaves all motion unknown.
        scale: What a unit of the reconstruction is: "sfm", "metric" or "unknown".
        depth: "dense" takes stereo/depth_maps, "points" the sparse points, "auto" the first of these that is there.
        depth_maps: Which of COLMAP's dense depth maps.
        max_reprojection_error: Pixels beyond which an observation of a point is left out.
        min_track_length: Images that must observe a point.
        max_points: Points that are also kept one by one in the motion record, those seen most often first.
        distortion: "keep" stores the lens, "undistort" rectifies, "auto" rectifies only what cannot be stored.
        allow_resized: Take images of another size than their camera's, and scale K.
        licence: Licence of the images, as it goes with every scene.
        citation: How to cite them.
    """

    images: str = ""
    time_kind: Literal["set", "sequence"] = "set"
    frame_rate: PositiveFloat = 30.0
    static: bool = True
    scale: Literal["sfm", "metric", "unknown"] = "sfm"
    depth: Literal["auto", "dense", "points", "none"] = "auto"
    depth_maps: Literal["geometric", "photometric"] = "geometric"
    max_reprojection_error: PositiveFloat = 4.0
    min_track_length: PositiveInt = 2
    max_points: NonNegativeInt = 20_000
    distortion: Literal["auto", "keep", "undistort"] = "auto"
    allow_resized: bool = False
    licence: str = "unstated"
    citation: str = "unstated"
