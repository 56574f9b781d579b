"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "scannet"
VERSION = "1.1.0"
VIEW = "camera"

LICENCE = "LicenseRef-ScanNet-Terms-of-Use"

CITATION = "Dai et al., ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes, CVPR 2017"

SOURCE_CONVENTIONS = (
    "camera_to_world is OpenCV already; its rotation, stored in single precision or as decimals, is replaced by "
    "the nearest exact one. K of colour and of depth come from the .sens header (or what was exported of it), with "
    "pixel centres at integers; half a pixel is added. Depth is z in 1/depthShift m, 0 is unknown, and keeps its own "
    "grid and K: it is registered to the colour camera already, so the two grids differ by the homography "
    "Kc inv(Kd). The calibration in <id>.txt is of the raw sensor and is not used."
)

SUPERVISION = ("rgb", "z_depth (sensor)", "motion: all static")

CARD = DatasetCard(
    name=NAME,
    title="ScanNet v2: .sens, exported folders, scannet_frames_25k",
    homepage="http://www.scan-net.org",
    licence=LICENCE,
    licence_note="Signed agreement with the authors; non-commercial research; no redistribution.",
    citation=CITATION,
    scale="metric",
    supervision=SUPERVISION,
    conventions=(
        "one view, `camera`; depth has its own grid and K, related to colour by a homography and not by a resize",
        "poses of frames where tracking was lost are all -inf: pose_is_known is false there",
        "times come from timestamp_color (microseconds) where these increase steadily, else from frame / 30 Hz; "
        "metadata.times says which",
        "axisAlignment of <id>.txt is kept in metadata and is not applied",
        "split by space, as the official v2 lists: 0707 to 0806 test, 142 spaces val, the others train",
        "numColorFrames of <id>.txt is kept in metadata; the frames of the .sens are counted from the .sens",
        "JPEG bytes of a .sens pass through; the official Python export had already encoded them again",
    ),
    defects=(
        "ScanNet/ScanNet#39: all timestamps are 0 in some scans (scene0000_00, scene0706_00)",
        "ScanNet/ScanNet#9: corrupt timestamps; scene0704_*, scene0705_* have colour of 640x480",
        "ScanNet/ScanNet#59: numColorFrames is one more than the frames of 9 scenes",
        "ScanNet/ScanNet#24: plainly wrong poses in a few scenes; certificates find them",
        "ScanNet/ScanNet#92: depth is registered already, <id>.txt's extrinsics must not be applied",
        "the demo of the C++ reader multiplies by depthShift where it must divide",
        "people and pets that move are not labelled, and called static",
    ),
)
