"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "waymo"
VERSION = "1.1.0"
LICENCE = "LicenseRef-Waymo-Open-Dataset-Non-Commercial"

CITATION = "Sun et al., Scalability in Perception for Autonomous Driving: Waymo Open Dataset, CVPR 2020"

SOURCE_CONVENTIONS = (
    "Waymo's vehicle and camera axes are x forward, y left, z up; here cameras are OpenCV's and world_from_cam = "
    "world_from_global image.pose extrinsic A^-1. The world has the global frame's axes and the place of the "
    "segment's first pose as origin. Pixels already have the corner as origin. Depth is z in the camera at the "
    "picture's own pose, of all lidars and both returns, the nearest per pixel, at the pixels of the shipped camera "
    "projections (both slots); points on rigid objects are moved to the picture's time. Boxes are upright in the "
    "vehicle frame and become poses at each picture's time; speeds are in the global frame."
)

SUPERVISION = (
    "rgb",
    "z_depth (lidar)",
    "instances",
    "motion: static background and signs, rigid vehicles; pedestrians, cyclists and no-label zones unknown",
)

CARD = DatasetCard(
    name=NAME,
    title="Waymo Open Dataset, Perception (v1 TFRecord, v2 parquet)",
    homepage="https://waymo.com/open",
    licence=LICENCE,
    licence_note="Non-commercial use only; what is derived from the data falls under the same agreement.",
    citation=CITATION,
    scale="metric",
    supervision=SUPERVISION,
    conventions=(
        "Frame.pose is of about the middle of the sweep, timestamp_micros of its start; pictures have their own poses",
        "images, lidars and calibrations come in any order and are joined by number",
        "range image rows run from the highest beam down; beam_inclinations from the lowest up",
        "TOP has a vehicle pose per pixel (first return only, used for both); the other lidars have none",
        "box width is field 4, length field 5; headings are about the vehicle's z",
        "labelled speeds are in the global frame (measured on released data), not the vehicle's",
        "camera projections: two slots, corner origin, rolling shutter already compensated",
    ),
    defects=(
        "waymo-research/waymo-open-dataset#482: scene flow is not in the released files",
        "the official build_camera_depth_image gives Euclidean distance, not z",
        "some labels hold no lidar points; camera_synced_box is absent before v1.3.1",
    ),
)
