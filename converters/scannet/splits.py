"""The official split of ScanNet v2 (Tasks/Benchmark/scannetv2_{train,val,test}.txt), which is by space."""

from __future__ import annotations

import re

SCENE_ID = re.compile(r"scene(\d{4})_(\d{2})")

#: Spaces of scannetv2_val.txt, all scans of each of them; no space is in two lists.
VAL_SPACES = frozenset(
    (
        *(
            11,
            15,
            19,
            25,
            30,
            46,
            50,
            63,
            64,
            77,
            81,
            84,
            86,
            88,
            95,
            100,
            131,
            139,
            144,
            146,
            149,
            153,
            164,
            169,
        ),
        *(
            187,
            193,
            196,
            203,
            207,
            208,
            217,
            221,
            222,
            231,
            246,
            249,
            251,
            256,
            257,
            277,
            278,
            300,
            304,
            307,
            314,
        ),
        *(
            316,
            328,
            329,
            334,
            338,
            342,
            343,
            351,
            353,
            354,
            355,
            356,
            357,
            377,
            378,
            382,
            389,
            406,
            412,
            414,
            423,
        ),
        *(
            426,
            427,
            430,
            432,
            435,
            441,
            458,
            461,
            462,
            474,
            488,
            490,
            494,
            496,
            500,
            518,
            527,
            535,
            549,
            550,
            552,
        ),
        *(
            553,
            558,
            559,
            565,
            568,
            574,
            575,
            578,
            580,
            583,
            591,
            593,
            595,
            598,
            599,
            606,
            607,
            608,
            609,
            616,
            618,
        ),
        *(
            621,
            629,
            633,
            643,
            644,
            645,
            647,
            648,
            651,
            652,
            653,
            655,
            658,
            660,
            663,
            664,
            665,
            670,
            671,
            678,
            684,
        ),
        *(685, 686, 689, 690, 693, 695, 696, 697, 699, 700, 701, 702, 704),
    )
)
_FIRST_TEST, _LAST_TEST = 707, 806


def official_split(scene_id: str) -> str:
    """Return "train", "val" or "test" of a scan, or "none" for a name that ScanNet does not have.

    >>> [official_split(s) for s in ("scene0000_00", "scene0011_01", "scene0707_00", "kitchen")]
    ['train', 'val', 'test', 'none']
    """
    match = SCENE_ID.fullmatch(scene_id)
    if match is None:
        return "none"
    space = int(match[1])
    if space in VAL_SPACES:
        return "val"
    if space < _FIRST_TEST:
        return "train"
    return "test" if space <= _LAST_TEST else "none"
