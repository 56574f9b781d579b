"""Small sound pieces of native files, which fuzzing starts from."""

from __future__ import annotations

#: A camera file up to its last line, two to four numbers of depth.
CAM_MATRICES = (
    b"extrinsic\n0 -1 0 1 \n1 0 0 2 \n0 0 1 3 \n0 0 0 1 \n\nintrinsic\n50 0 33.5 \n0 52 23 \n0 0 1 \n\n"
)
#: Of three pictures, with two neighbours, none and one.
PAIRS = b"3\n0\n2 1 50.5 9 1e1 \n1\n0  \n9\n1 0 3\n"
#: A line of a list of scenes.
SCENE_LINE = b"5b7a3890fc8fcf6781e2593a\r\n"
