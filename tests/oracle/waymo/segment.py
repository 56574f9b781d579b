"""Write the synthetic segment that the official package is asked about: `python -m tests.oracle.waymo.segment OUT`.

A vehicle that drives and turns, five cameras with rolling shutters, five lidars, two returns; both release forms.
"""

from __future__ import annotations

import sys
from pathlib import Path

from converters import waymo
from datakit.worlds import driving_world

SEED, NUM_FRAMES, SIZE = 4, 2, (96, 64)


def main(out: Path) -> None:
    for form in waymo.NATIVE_FORMS:
        (out / form).mkdir(parents=True)
        world = driving_world(SEED, num_frames=NUM_FRAMES, size=SIZE)
        waymo.write_native(iter([world]), out / form, form)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
