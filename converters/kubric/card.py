"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "kubric"
VERSION = "1.0.0"
VIEW = "camera"

LICENCE = "Apache-2.0"

CITATION = (
    "Greff et al., Kubric: a scalable dataset generator, CVPR 2022; "
    "assets: Downs et al., Google Scanned Objects, ICRA 2022"
)

SOURCE_CONVENTIONS = (
    "Kubric cameras look along -z with y up and carry wxyz quaternions to a z-up metric world; here "
    "world_from_cam = [R(q) diag(1,-1,-1) | position]. K is rebuilt in pixels from focal_length / "
    "sensor_width, pixels being square. Depth is the distance along the ray and becomes z at pixel centres. "
    "Flow is stored (row, column); backward flow is stored as x(t) - x(t-1) and is negated. Aux layers of "
    "downscaled TFDS configs are picked samples and carry their own K."
)

SUPERVISION = (
    "rgb",
    "z_depth (rendered)",
    "instances",
    "normals_world",
    "flow_forward",
    "flow_backward",
    "object_coords",
    "motion: static background, one rigid row per visible instance",
)

CARD = DatasetCard(
    name=NAME,
    title="Kubric worker output and MOVi-A..F / panning MOVi-E (TFDS)",
    homepage="https://github.com/google-research/kubric",
    licence=LICENCE,
    licence_note=(
        "Of the repository that publishes the renderer and the MOVi sets. The assets rendered in them "
        "(Google Scanned Objects CC-BY-4.0, Poly Haven HDRIs CC0) keep their own licences."
    ),
    citation=CITATION,
    scale="metric",
    supervision=SUPERVISION,
    conventions=(
        "depth on disk is the distance along the ray, not z",
        "flow on disk is (row, column); backward flow is minus the usual one",
        "quaternions are wxyz, cameras look along -z, world z is up, units are metres",
        "metadata.camera.R and events' image_position belong to the frame after the clip and are not used",
        "instance k of metadata is id k + 1; static objects are instances too; background is id 0",
        "TFDS configs smaller than the render pick their aux samples off the pixel centre (own K per layer)",
        "collision frames count from simulation frame 0; image index = frame - 1",
        "an 8-bit segmentation can hold 255 instances; clips with more are refused, for their ids wrapped",
    ),
    defects=(
        "google-research/kubric#152: backward_flow is x(t) - x(t-1)",
        "MOVi-F: rgb is motion-blurred, all other layers are sharp at the frame time",
        "a clip with empty background stores 1e10 m there; its 16-bit TFDS depth has lost the foreground",
        "where nothing moves the flow range is degenerate and its pixels garbage; decoded as the constant",
        "--seed does not fix the camera: two runs of one seed differ",
    ),
)
