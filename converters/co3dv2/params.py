"""What a user may choose when converting CO3Dv2."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

#: Subsets of set_lists/ and the split that a sequence in them belongs to, the strictest first: a sequence that is
#: tested on anywhere is never called training data.
SUBSETS = {
    "fewview_test": "test",
    "manyview_test": "test",
    "fewview_dev": "val",
    "manyview_dev_0": "val",
    "manyview_dev_1": "val",
    "fewview_train": "train",
}
Subset = Literal[
    "all",
    "fewview_train",
    "fewview_dev",
    "fewview_test",
    "manyview_dev_0",
    "manyview_dev_1",
    "manyview_test",
]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    """Parameters of the CO3Dv2 converter.

    Attributes:
        categories: Categories to convert; empty for all that are there.
        subset: "all" for every annotated frame, or only the frames that a subset's set list names (once each).
        min_viewpoint_quality: Leave out sequences whose viewpoint_quality_score is not above it, or is null; None
            keeps all. dust3r and CUT3R take 0.5 (dust3r preprocess_co3d.py:56,152).
        min_point_cloud_quality: The same for point_cloud.quality_score (co3d issues 46 and 54).
        max_translation: Poses with an entry of T beyond it, either way, are unknown (RayDiffusion co3d_v2.py:279).
        rotation_tolerance: Poses whose det(R) is further from 1, or whose R is further from a rotation in any
            entry, are unknown (RayDiffusion co3d_v2.py:280 takes det 0.99 to 1.01).
        depth_mask: "keep" stores the depth masks as a layer; "apply" also makes depth outside of them unknown. They
            are for evaluation, and wrong for many sequences (co3d issue 57).
    """

    categories: tuple[str, ...] = ()
    subset: Subset = "all"
    min_viewpoint_quality: float | None = None
    min_point_cloud_quality: float | None = None
    max_translation: PositiveFloat = 1e5
    rotation_tolerance: NonNegativeFloat = 0.01
    depth_mask: Literal["keep", "apply"] = "keep"
