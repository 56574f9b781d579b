"""Analytic synthetic worlds with closed-form truth: depth, normals, flow, poses, tracks and visibility."""

from .cast import Hits, WorldInstance
from .deform import Jelly, Sheet, Wave
from .driving import DrivingWorld, driving_world
from .paths import Bounce, CameraPath, Linear, Orbit, RigidPath, Spin, Still, Sway
from .random import random_world
from .scene import world_motion, world_scene_stream, write_world_scene
from .shapes import Box, Cylinder, Plane, Room, Sphere
from .textures import Texture, random_texture
from .world import World, WorldFrame, WorldView, make_instance, make_view

__all__ = [
    "Bounce",
    "Box",
    "CameraPath",
    "Cylinder",
    "DrivingWorld",
    "Hits",
    "Jelly",
    "Linear",
    "Orbit",
    "Plane",
    "RigidPath",
    "Room",
    "Sheet",
    "Sphere",
    "Spin",
    "Still",
    "Sway",
    "Texture",
    "Wave",
    "World",
    "WorldFrame",
    "WorldInstance",
    "WorldView",
    "make_instance",
    "make_view",
    "driving_world",
    "random_texture",
    "random_world",
    "world_motion",
    "world_scene_stream",
    "write_world_scene",
]
