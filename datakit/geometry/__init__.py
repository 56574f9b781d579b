"""Cameras, rigid transforms, projection and alignment: numpy, float64, vectorised."""

from datakit.schema.rules import is_rigid

from .align import umeyama
from .cameras import DISTORTION_MODELS, project_distorted, unproject_distorted
from .pixels import (
    centre_from_corner_intrinsics,
    corner_from_centre_intrinsics,
    crop_intrinsics,
    homography_points,
    pixel_centres,
    resize_intrinsics,
)
from .project import camera_rays, project_points, ray_distance_from_z, unproject_pixels, z_from_ray_distance
from .transforms import (
    invert_rigid,
    look_at,
    quaternion_wxyz_from_rotation,
    quaternion_xyzw_from_rotation,
    rigid_from,
    rotation_angle,
    rotation_from_axis_angle,
    rotation_from_quaternion_wxyz,
    rotation_from_quaternion_xyzw,
    transform_points,
)

__all__ = [
    "DISTORTION_MODELS",
    "camera_rays",
    "centre_from_corner_intrinsics",
    "corner_from_centre_intrinsics",
    "crop_intrinsics",
    "homography_points",
    "invert_rigid",
    "is_rigid",
    "look_at",
    "pixel_centres",
    "project_distorted",
    "project_points",
    "quaternion_wxyz_from_rotation",
    "quaternion_xyzw_from_rotation",
    "ray_distance_from_z",
    "resize_intrinsics",
    "rigid_from",
    "rotation_angle",
    "rotation_from_axis_angle",
    "rotation_from_quaternion_wxyz",
    "rotation_from_quaternion_xyzw",
    "transform_points",
    "umeyama",
    "unproject_distorted",
    "unproject_pixels",
    "z_from_ray_distance",
]
