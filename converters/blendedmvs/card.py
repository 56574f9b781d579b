"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "blendedmvs"
VERSION = "1.0.0"
VIEW = "camera"

LICENCE = "CC-BY-4.0"

CITATION = (
    "Yao et al., BlendedMVS: A Large-scale Dataset for Generalized Multi-view Stereo Networks, CVPR 2020"
)

SOURCE_CONVENTIONS = (
    "cam.txt holds cam_from_world in OpenCV axes, inverted here after its decimals are replaced by the nearest exact "
    "rotation, and K in pixels of the scene's own resolution with the corner of the image as origin (the authors' "
    "warping puts pixel centres at .5). PFM depth is z in the unit of the poses, rows from the bottom, byte order by "
    "the sign of its scale; 0 and anything not finite is unknown. DEPTH_MIN and DEPTH_MAX bound a plane sweep and "
    "mask nothing. Photos have no order in time; times number them."
)

SUPERVISION = ("rgb", "z_depth (rendered)", "motion: all static", "covisibility scores (metadata)")

CARD = DatasetCard(
    name=NAME,
    title="BlendedMVS, BlendedMVS+ and BlendedMVS++ (together BlendedMVG)",
    homepage="https://github.com/YoYo000/BlendedMVS",
    licence=LICENCE,
    licence_note="Attribution; the dataset's README.md says so for all three releases.",
    citation=CITATION,
    scale="sfm",
    supervision=SUPERVISION,
    conventions=(
        "one view, `camera`; time_kind is `set`: photos without time or order",
        "one unit is arbitrary and differs from scene to scene; never metric",
        "depth is rendered from the textured mesh that the images were blended with; no mesh, no depth",
        "pixels have the corner of the image as origin, as in the authors' own warping; several readers in use take "
        "the same K with pixel centres at integers, half a pixel off",
        "pair.txt is kept as metadata.covisibility: per frame, [frame, score] of its sources, best first",
        "metadata.depth_sweep keeps DEPTH_MIN, INTERVAL, NUM, MAX; max = min + interval * num where it is left out",
        "`images=masked` takes the images whose pixels without geometry are black; depth is the same",
        "split: list files beside the scenes, else the official lists; the 7 validation scenes are val",
    ),
    defects=(
        "BlendedMVS README.md: some images lie outside the mesh, and their whole depth map is empty",
        "BlendedMVS README.md: DEPTH_MIN or DEPTH_MAX of some cameras is 0 or less",
        "BlendedMVS README.md: some images have fewer than ten source views in pair.txt, even none",
        "YoYo000/BlendedMVS#30: depth of some BlendedMVS++ scenes does not reproject; certificates find them",
        "BlendedMVS README.md: low-res files of before April 2020 were rendered with wrong textures",
        "YoYo000/BlendedMVS#42: whether the scale is relative or absolute was asked and not answered",
        "far outliers of depth are kept: peers cut the last 2 or 3 per cent when training",
    ),
)
