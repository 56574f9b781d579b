"""`datakit world DATASET OUT` works as it stands for datasets in which nothing moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from datakit.convert import load_converter
from datakit.errors import ConventionError
from datakit.motion import MotionKind


@pytest.mark.parametrize("dataset", ["blendedmvs", "co3dv2", "scannet", "colmap"])
def test_worlds_of_static_datasets_are_static(dataset: str, tmp_path: Path) -> None:
    converter = load_converter(dataset)
    assert converter.make_world is not None
    world = converter.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    assert {body.motion for body in world.bodies} == {MotionKind.STATIC} and world.num_frames == 2
    converter.write_native(iter([world]), tmp_path / "raw", converter.NATIVE_FORMS[0])
    assert len(list(converter.scenes(tmp_path / "raw", converter.Params()))) == 1
    # What was asked for by name is not quietly something else.
    moving = converter.make_world(0, num_frames=2, size=(32, 24), motion="points")
    with pytest.raises(ConventionError):
        converter.write_native(iter([moving]), tmp_path / "other", converter.NATIVE_FORMS[0])
