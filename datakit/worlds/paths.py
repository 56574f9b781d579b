"""Smooth motions as functions of continuous time in seconds, for objects and cameras alike."""

# `at` is documented once, on the protocol.
# ruff: noqa: D102

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from datakit import geometry as g

from .shapes import Float

Vec3 = tuple[float, float, float]


class Curve(Protocol):
    """A moving point."""

    def at(self, times: Float) -> Float:
        """Return (K, 3) positions in metres at times (K,) in seconds."""
        ...


@dataclass(frozen=True)
class Still:
    """A point that stays."""

    point: Vec3

    def at(self, times: Float) -> Float:
        return np.tile(np.asarray(self.point, np.float64), (len(times), 1))


@dataclass(frozen=True)
class Linear:
    """A point at `point` at time 0 that moves at constant `velocity` (m/s)."""

    point: Vec3
    velocity: Vec3

    def at(self, times: Float) -> Float:
        return np.asarray(self.point) + times[:, None] * np.asarray(self.velocity)


@dataclass(frozen=True)
class Sway:
    """A point that swings: point + swing * sin(omega t + phase)."""

    point: Vec3
    swing: Vec3
    omega: float
    phase: float = 0.0

    def at(self, times: Float) -> Float:
        share = np.sin(self.omega * times + self.phase)
        return np.asarray(self.point) + share[:, None] * np.asarray(self.swing)


@dataclass(frozen=True)
class Orbit:
    """A point on a level circle, with an optional climb: angle = omega t + phase, height + climb * t."""

    centre: Vec3
    radius: float
    omega: float
    phase: float
    climb: float = 0.0

    def at(self, times: Float) -> Float:
        angle = self.omega * times + self.phase
        x, y = self.radius * np.cos(angle), self.radius * np.sin(angle)
        return np.asarray(self.centre) + np.stack([x, y, self.climb * times], axis=1)


@dataclass(frozen=True)
class Bounce:
    """A point that bounces without loss: parabolas of `height` above `point`, one every `period` seconds.

    Horizontally it swings like `Sway`, with one swing every four bounces.
    """

    point: Vec3
    height: float
    period: float
    phase: float
    swing: Vec3 = (0.0, 0.0, 0.0)

    def at(self, times: Float) -> Float:
        beat = times / self.period + self.phase
        rise = 4 * self.height * (beat % 1.0) * (1 - beat % 1.0)
        out = np.asarray(self.point) + np.sin(beat * np.pi / 2)[:, None] * np.asarray(self.swing)
        out[:, 2] += rise
        return out


@dataclass(frozen=True)
class Spin:
    """A turning frame: rotation vector `start`, then a turn about the world axis `axis` at `rate` rad/s."""

    start: Vec3 = (0.0, 0.0, 0.0)
    axis: Vec3 = (0.0, 0.0, 1.0)
    rate: float = 0.0

    def at(self, times: Float) -> Float:
        """Return (K, 3, 3) rotations at times (K,)."""
        turn = g.rotation_from_axis_angle(np.asarray(times)[:, None] * self.rate * np.asarray(self.axis))
        return turn @ g.rotation_from_axis_angle(np.asarray(self.start, np.float64))


@dataclass(frozen=True)
class RigidPath:
    """A rigid motion: a curve and a spin."""

    curve: Curve = field(default_factory=lambda: Still((0.0, 0.0, 0.0)))
    spin: Spin = field(default_factory=Spin)

    def world_from_instance(self, times: ArrayLike) -> Float:
        """Return (K, 4, 4) poses at times (K,) in seconds."""
        when = np.atleast_1d(np.asarray(times, np.float64))
        return g.rigid_from(self.spin.at(when), self.curve.at(when))


class CameraMotion(Protocol):
    """A camera's pose and intrinsics at any time."""

    def world_from_cam(self, times: ArrayLike) -> Float:
        """Return (K, 4, 4) poses at times (K,) in seconds."""
        ...

    def intrinsics(self, times: ArrayLike) -> Float:
        """Return (K, 3, 3) intrinsics at times (K,) in seconds."""
        ...


@dataclass(frozen=True)
class CameraPath:
    """A camera that travels on `eye` and looks at `target`, z up; `mount_from_cam` places it on that rig.

    Attributes:
        eye: Curve of the rig's centre.
        target: Curve of the point it looks at.
        focal: (fx, fy) pixels at time 0.
        centre: (cx, cy) principal point, corner-origin pixels.
        mount_from_cam: Rotation vector and translation of this camera in the frame of the rig (OpenCV axes).
        zoom: Share by which the focal length grows per second, 0 for a fixed lens.
    """

    eye: Curve
    target: Curve
    focal: tuple[float, float]
    centre: tuple[float, float]
    mount_from_cam: tuple[Vec3, Vec3] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    zoom: float = 0.0

    def world_from_cam(self, times: ArrayLike) -> Float:
        """Return (K, 4, 4) poses at times (K,) in seconds."""
        when = np.atleast_1d(np.asarray(times, np.float64))
        rig = g.look_at(self.eye.at(when), self.target.at(when), np.array([0.0, 0.0, 1.0]))
        turn, shift = self.mount_from_cam
        return np.asarray(rig @ g.rigid_from(g.rotation_from_axis_angle(turn), shift))

    def intrinsics(self, times: ArrayLike) -> Float:
        """Return (K, 3, 3) intrinsics at times (K,) in seconds."""
        growth = np.exp(self.zoom * np.atleast_1d(np.asarray(times, np.float64)))
        out = np.zeros((len(growth), 3, 3))
        out[:, 0, 0], out[:, 1, 1] = self.focal[0] * growth, self.focal[1] * growth
        out[:, :2, 2], out[:, 2, 2] = self.centre, 1.0
        return out
