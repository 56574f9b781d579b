"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "dynamic_replica"
VERSION = "1.1.0"
LICENCE = "CC-BY-NC-4.0"

CITATION = "Karaev et al., DynamicStereo: Consistent Dynamic Depth from Stereo Videos, CVPR 2023"

SOURCE_CONVENTIONS = (
    "PyTorch3D cameras: row vectors, x left, y up; here world_from_cam = inv([S R^T | S T]) with S = diag(-1,-1,1). "
    "ndc_isotropic intrinsics: s = min(H, W) / 2, f s and size / 2 - p s, corner origin. Depth is the half-float bit "
    "pattern of 16-bit PNGs, z in metres, times scale_adjustment. Flow PNGs are 2W wide, dx left and dy right, half "
    "floats in pixels. Trajectories are of mesh vertices of the left camera's files, in the world of both."
)

SUPERVISION = (
    "rgb",
    "z_depth (rendered)",
    "instances",
    "flow_forward",
    "flow_backward",
    "motion: trajectories of mesh vertices by instance, with their visibility in the left view",
)

CARD = DatasetCard(
    name=NAME,
    title="Dynamic Replica (v2)",
    homepage="https://dynamic-stereo.github.io",
    licence=LICENCE,
    licence_note="Non-commercial use only; the links come after a licence has been accepted.",
    citation=CITATION,
    scale="metric",
    supervision=SUPERVISION,
    conventions=(
        "split folders (<split>/frame_annotations_<split>.jgz) or one flat folder with the annotation files beside",
        "paths in the annotations are relative to the folder that holds them",
        "instance, flow and trajectory entries are null, a string, or an object with a path that may be null",
        "depth 0, -0, inf, nan, negative or below 1e-5 is unknown",
        "trajectories exist for the left camera only; the right view's visibility follows from its depth",
        "a vertex's visible flag does not say that it is inside the picture",
        "the third column of traj_2d and the copy of the picture in each .pth are not used; pickles are not read",
    ),
    defects=(
        "facebookresearch/dynamic_stereo#18: depth of 009850-3_obj is ambiguous",
        "facebookresearch/dynamic_stereo#23: frame 0 of 56aada-7_obj has broken depth (found by its trajectories)",
        "facebookresearch/dynamic_stereo#20: background disparity of some sequences",
        "traj_2d may hold infinities",
    ),
)
