"""Procedural colour painted on material coordinates, filtered exactly for the pixel that sees it.

A texture is a sum of plane waves. The average of a plane wave over a Gaussian pixel footprint is known in
closed form, so each wave fades by itself where the pixels become too coarse for it: surfaces never alias, and
colours may be interpolated between pixels. Shading is painted on too (it turns with the object), so that a
surface point keeps its colour from every view and at every time. Outlines are not smoothed: each pixel shows
the one surface at its centre, as all other layers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import Float

#: Standard deviation of the pixel footprint, in pixels.
_FOOTPRINT_SIGMA = 0.5


@dataclass(frozen=True, eq=False)
class Texture:
    """Coloured plane waves over material coordinates.

    Attributes:
        base: (3,) mean colour in [0, 1].
        wavevectors: (n, 3) rad/m.
        phases: (n,) rad.
        colours: (n, 3) signed amplitude of each wave in each channel.
        light: (3,) unit vector in the material frame from which the painted shading comes.
        shade: Strength of that shading, 0 for none.
    """

    base: Float
    wavevectors: Float
    phases: Float
    colours: Float
    light: Float
    shade: float

    def colour(self, material: Float, normals: Float, footprint: Float) -> NDArray[np.float32]:
        """Paint surface points.

        Args:
            material: (N, 3) metres.
            normals: (N, 3) unit, material frame, outward.
            footprint: (N, 2, 3) metres of material coordinates per pixel step in u and in v.

        Returns:
            (N, 3) float32 RGB in [0, 1].
        """
        waves = self.wavevectors.T.astype(np.float32)
        angle = material.astype(np.float32) @ waves + self.phases.astype(np.float32)
        stretch = footprint.astype(np.float32) @ waves  # (N, 2, n) radians per pixel
        fade = np.exp(np.float32(-0.5 * _FOOTPRINT_SIGMA**2) * (stretch**2).sum(axis=1))
        detail = (np.cos(angle) * fade) @ self.colours.astype(np.float32)
        shading = 1 + self.shade * (normals @ self.light)
        rgb = (self.base + detail) * shading[:, None]
        return np.clip(rgb, 0.0, 1.0).astype(np.float32)


def random_texture(
    rng: np.random.Generator,
    *,
    longest: float,
    shortest: float,
    waves_per_octave: int = 6,
    contrast: float = 0.14,
    tint: float = 0.4,
    shade: float = 0.2,
) -> Texture:
    """Draw a texture of equal strength in every octave between two wavelengths.

    Args:
        rng: Source of all randomness.
        longest: Longest wavelength in metres.
        shortest: Shortest wavelength in metres.
        waves_per_octave: Waves in each octave.
        contrast: Standard deviation of the grey level.
        tint: How much the channels differ, 0 for grey.
        shade: Strength of the painted shading.

    Returns:
        The texture.
    """
    octaves = max(1, round(np.log2(longest / shortest)))
    num = octaves * waves_per_octave
    length = longest * 2.0 ** -(np.arange(num) / waves_per_octave)
    direction = rng.normal(size=(num, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    colours = contrast * np.sqrt(2 / num) * (1 + tint * rng.normal(size=(num, 3)))
    light = np.array([0.4, -0.3, 0.85]) + 0.2 * rng.normal(size=3)
    return Texture(
        base=0.5 + 0.6 * tint * rng.uniform(-1, 1, size=3),
        wavevectors=2 * np.pi / length[:, None] * direction,
        phases=rng.uniform(0, 2 * np.pi, size=num),
        colours=colours,
        light=light / np.linalg.norm(light),
        shade=shade,
    )
