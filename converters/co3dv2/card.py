"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "co3dv2"
VERSION = "1.1.0"
VIEW = "camera"

LICENCE = "CC-BY-NC-4.0"

CITATION = (
    "Reizenstein et al., Common Objects in 3D: Large-Scale Learning and Evaluation of Real-life 3D Category "
    "Reconstruction, ICCV 2021"
)

SOURCE_CONVENTIONS = (
    "Cameras are PyTorch3D's: row vectors X_cam = X_world R + T, x left, y up, z forward; here world_from_cam = "
    "[R S | -R T] with S = diag(-1, -1, 1), R replaced by the nearest exact rotation. Focal length and principal point "
    "are NDC, in halves of the shorter side (ndc_isotropic) or of each side (ndc_norm_image_bounds, also where no "
    "format is stated); NDC +-1 are the outer edges of the image. Depth is half floats in the bits of a 16-bit PNG "
    "times scale_adjustment, z along the axis in units of structure from motion; 0, negative, infinite and NaN are "
    "unknown. frame_number orders the frames; it is not the number in the file name."
)

SUPERVISION = (
    "rgb",
    "z_depth (mvs)",
    "foreground (soft mask)",
    "depth_confidence (depth mask)",
    "motion: all static",
)

CARD = DatasetCard(
    name=NAME,
    title="Common Objects in 3D, version 2",
    homepage="https://github.com/facebookresearch/co3d",
    licence=LICENCE,
    licence_note="Attribution, no commercial use.",
    citation=CITATION,
    scale="sfm",
    supervision=SUPERVISION,
    conventions=(
        "one view, `camera`; frames in the order of frame_number, times are frame_timestamp in seconds; where these "
        "do not increase the scene is a `set` and metadata.times says so",
        "one unit is that of structure from motion, different in every sequence; never metric",
        "frames blanked for the challenge (black image, no depth) are left out and named in metadata.redacted_frames",
        "frames without a usable pose stay, with pose_is_known false and the nearest frame's K; metadata.poses_unknown "
        "says why",
        "split: test if any *_test set list names the sequence, else val for *_dev*, else train for fewview_train; "
        "metadata.set_lists keeps each frame's own part",
        "foreground is the mask's value / 255; depth_confidence is the depth mask, meant for evaluation",
        "min_viewpoint_quality and min_point_cloud_quality leave sequences out; by default none are",
        "only sequences whose folder is there are listed: chunks can be downloaded one by one",
    ),
    defects=(
        "facebookresearch/co3d#49: every train frame of fewview_train is listed under test as well",
        "facebookresearch/co3d#70: targets of fewview_test and manyview_test have black images and no depth",
        "facebookresearch/co3d#76: depth and poses are in units of structure from motion, not metres",
        "facebookresearch/co3d#57: depth masks are wrong for many sequences; #54: some are missing",
        "facebookresearch/co3d#46, #54: point_cloud.quality_score is the better measure of a sequence",
        "some sequences of teddybear have an R that is no rotation, some a T of 1e5 or more",
        "the file suffix runs ahead of frame_number by 1, in some sequences by up to 64",
        "depth is from multi-view stereo: holes, outliers, and some empty maps",
        "people and background that move are not labelled, and called static",
    ),
)
