"""The dataset card, and the texts that go with every scene."""

from __future__ import annotations

from datakit.convert.api import DatasetCard

NAME = "colmap"
VERSION = "1.0.0"

SOURCE_CONVENTIONS = (
    "COLMAP's poses are cam_from_world with scalar-first quaternions, and are inverted; axes are OpenCV's. Pixels have "
    "the corner of the image as origin, as here. Depth maps are z at pixel centres, on a grid that is a resize of the "
    "image's. Points are put into the pixel that they project to, in the images that observe them."
)

SUPERVISION = (
    "rgb",
    "z_depth (mvs): dense depth maps, else sparse points",
    "motion: all static (or unknown), points with the images that see them",
)

CARD = DatasetCard(
    name=NAME,
    title="Any COLMAP model with its images: own posed photos and videos",
    homepage="https://colmap.github.io",
    licence="stated by the user (--param licence=...)",
    licence_note="Yours to state; it goes with every scene and shard.",
    citation="Schonberger and Frahm, Structure-from-Motion Revisited, CVPR 2016",
    scale="sfm",
    supervision=SUPERVISION,
    conventions=(
        "one view per folder, size, lens and format of images; K may differ from image to image of a view",
        "lenses that the contract has are kept with their coefficients, others are rectified by pycolmap; "
        "--param distortion=undistort rectifies all of them",
        "an unordered set of photos unless --param time_kind=sequence; then times are the numbers in the image names, "
        "or their order, over frame_rate",
        "everything is called static unless --param static=false",
        "scale is that of the reconstruction unless --param scale=metric",
        "JPEG and 8-bit RGB(A) PNG pass through; grey and palette images are encoded again without loss",
    ),
    defects=(
        "colmap/colmap#534, #1515: patch match puts pixel centres at integers while K has them at halves; to first "
        "order both views' errors cancel, so its depth is taken as that of the pixel's centre",
        "images that COLMAP could not register are not in the model and not in the scene",
    ),
)
