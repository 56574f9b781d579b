"""What can be chosen about a stream; all of it is part of the order's identity."""

from __future__ import annotations

from dataclasses import dataclass

from datakit.errors import UsageError

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentParams:
    """How clips are varied. Every choice is made once a clip, so it is the same in all of its frames.

    The D4RT paper gives the crop's scale and the three probabilities; the ranges are ours (`docs/stream.md`).

    Attributes:
        max_stride: Frames of the source per frame of the clip, drawn from 1 to this or to what the source allows.
        crop_area: Share of the source image's area that is kept; (1, 1) for all of it.
        zoom_probability: How often `zoom_area` replaces `crop_area`.
        zoom_area: Share of the area kept when zooming in.
        brightness: Factor on colours.
        contrast: Factor on the distance from the clip's mean grey.
        saturation: Factor on the distance from grey.
        hue: Turn of the hue circle.
        colour_drop_probability: How often the clip becomes grey.
        blur_probability: How often the clip (not its patches) is blurred.
        blur_sigma: Gaussian sigma in network pixels.
        set_overlap: Of photos without an order in time: the least share of what it shows that a photo has in common
            with some other one of the clip, and the most that it may have in common with any (near copies teach
            little). Only where the shards say what overlaps; elsewhere photos are drawn freely.
    """

    max_stride: int = 8
    crop_area: Range = (0.3, 1.0)
    zoom_probability: float = 0.05
    zoom_area: Range = (0.1, 0.3)
    brightness: Range = (0.7, 1.3)
    contrast: Range = (0.7, 1.3)
    saturation: Range = (0.6, 1.4)
    hue: Range = (-0.05, 0.05)
    colour_drop_probability: float = 0.2
    blur_probability: float = 0.4
    blur_sigma: Range = (0.3, 2.0)
    set_overlap: Range = (0.1, 1.0)

    def __post_init__(self) -> None:
        if self.max_stride < 1:
            raise UsageError("max_stride must be at least 1", found=self.max_stride)
        for name in ("crop_area", "zoom_area", "blur_sigma", "brightness", "contrast", "saturation", "hue"):
            low, high = getattr(self, name)
            floor = -1.0 if name == "hue" else 0.0
            is_area = name.endswith("area")
            if not floor <= low <= high or (is_area and not 0 < low <= high <= 1):
                raise UsageError(
                    f"{name} is not a range",
                    expected="0 < low <= high <= 1" if is_area else f"{floor:g} <= low <= high",
                    found=(low, high),
                )
        for name in ("zoom_probability", "colour_drop_probability", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is not a probability", found=getattr(self, name))
        if not 0 <= self.set_overlap[0] <= self.set_overlap[1] <= 1:
            raise UsageError(
                "set_overlap is not a range", expected="0 <= least <= most <= 1", found=self.set_overlap
            )

    @staticmethod
    def none() -> AugmentParams:
        """Return parameters that leave clips as they are: consecutive frames, whole image, true colours."""
        one = (1.0, 1.0)
        return AugmentParams(1, one, 0.0, one, one, one, one, (0.0, 0.0), 0.0, 0.0)


@dataclass(frozen=True)
class ClipParams:
    """What a sample is made of.

    Attributes:
        clip_frames: T; shorter sources are padded and masked.
        size: Width and height of the network's square, pixels.
        num_queries: N.
        sampler: Name of a sampler of `datakit.queries`.
        augment: How clips are varied.
    """

    clip_frames: int = 48
    size: int = 256
    num_queries: int = 2048
    sampler: str = "paper"
    augment: AugmentParams = AugmentParams()

    def __post_init__(self) -> None:
        for name in ("clip_frames", "size", "num_queries"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1", found=getattr(self, name))
