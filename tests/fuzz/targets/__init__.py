"""What is fuzzed: for each parser of native files, inputs to start from and what is done with each input.

A module for each dataset or format, whose `make` makes its targets; what they share is in kit.py. Only the module of
the target that is asked for is imported, and only it imports its parsers.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from .kit import Target

#: Names of each module's targets, as `make` of the module names them.
GROUPS = {
    module: tuple(names.split())
    for module, names in {
        "blendedmvs": "pfm cam pair list",
        "co3dv2": "frame-annotations frame-values sequence-annotations jgz set-list depth-png depth-png-raw "
        "mask-png",
        "scannet": "sens pgm matrix scan-txt scan-info",
        "colmap": "colmap-cameras-bin colmap-images-bin colmap-points3D-bin colmap-cameras-txt "
        "colmap-images-txt colmap-points3D-txt colmap-depth",
        "colmap_lens": "colmap-lens",
        "jpeg": "jpeg",
        "kubric": "kubric-metadata kubric-values kubric-ranges kubric-events kubric-tiff kubric-png "
        "kubric-tfds-info kubric-tfds-features kubric-tfds-values kubric-example kubric-record",
        "dynamic_replica": "replica-annotations replica-values replica-jgz replica-depth replica-flow "
        "replica-instances replica-pickle replica-pth",
        "tfrecord": "tfrecord tfrecord-raw",
        "waymo_v1": "waymo-matrix waymo-calibration waymo-pose waymo-image waymo-label waymo-laser "
        "waymo-range-image waymo-frame waymo-segment waymo-values",
        "waymo_v2": "waymo-v2-cameras waymo-v2-lasers waymo-v2-stats waymo-v2-poses waymo-v2-images "
        "waymo-v2-boxes waymo-v2-synced-boxes waymo-v2-pictures waymo-v2-lidar waymo-v2-projections "
        "waymo-v2-parquet",
    }.items()
}
NAMES = [name for names in GROUPS.values() for name in names]


def make_group(group: str, folder: Path) -> dict[str, Target]:
    """Make the targets of one module; files that their parsers must open lie in `folder`."""
    made: dict[str, Target] = import_module(f".{group}", __name__).make(folder)
    return made


def make_target(name: str, folder: Path) -> Target:
    """Make one target; files that its parser must open lie in `folder`."""
    (group,) = [group for group, names in GROUPS.items() if name in names]
    return make_group(group, folder)[name]
