"""Traps of v2's tables: components that are missing, and rows, columns and files of another kind.

Each test fails without its handling.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import waymo
from converters.waymo import v2
from datakit.errors import ConventionError, FormatError, LayoutError

from .conftest import convert, only_scene


def test_float32_transforms_and_named_cameras_of_older_tables(
    natives: dict[str, Path], scene_files: dict[str, Path], tmp_path: Path
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = {1: "FRONT", 2: "FRONT_LEFT", 3: "FRONT_RIGHT", 4: "SIDE_LEFT", 5: "SIDE_RIGHT"}
    for path in natives["v2"].rglob("*.parquet"):
        table = pq.read_table(path)
        for k, field in enumerate(table.schema):
            if field.name.endswith("extrinsic.transform"):
                column = table[k].combine_chunks().cast(pa.list_(pa.float32(), 16))
                table = table.set_column(k, field.name, column)
            if field.name == "key.camera_name":
                table = table.set_column(k, field.name, pa.array([names[v.as_py()] for v in table[k]]))
        target = tmp_path / "n" / path.relative_to(natives["v2"])
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
    path = convert(tmp_path / "n", tmp_path / "out.h5")
    with datakit.open_scene(path) as old, datakit.open_scene(scene_files["v2"]) as new:
        for name, view in new.views.items():
            np.testing.assert_allclose(old.views[name].world_from_cam, view.world_from_cam, atol=1e-6)


def test_optional_components_may_be_missing(natives: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "n"
    shutil.copytree(natives["v2"], root)
    for component in ("lidar_camera_synced_box", "stats", "lidar", "lidar_box"):
        shutil.rmtree(root / "training" / component)
    with datakit.open_scene(convert(root, tmp_path / "out.h5")) as scene:
        assert np.isnan(scene.views["front"].z_depth(0)).all()
    assert {p.severity for p in waymo.probe(root).problems} == {"warning"}
    shutil.rmtree(root / "training" / "vehicle_pose")
    with pytest.raises(LayoutError, match="component"):
        convert(root, tmp_path / "out2.h5")


def test_a_table_that_is_no_parquet_is_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "lidar").glob("*.parquet"))
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="parquet"):
        convert(tmp_path / "n", tmp_path / "out.h5")
    assert any(p.severity == "error" for p in waymo.probe(tmp_path / "n").problems)


def test_a_table_of_what_arrow_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by fuzzing: its other errors are neither ValueErrors nor OSErrors."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def refuse(path: Path) -> None:
        raise pyarrow.lib.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    monkeypatch.setattr(parquet, "ParquetFile", refuse)
    with pytest.raises(FormatError, match="64 bits"):
        v2.count_rows(v2.Tables({"stats": tmp_path}, "x"), "stats")


def test_rows_out_of_the_order_of_time_are_refused(natives: dict[str, Path], tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "lidar").glob("*.parquet"))
    table = pq.read_table(victim)
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), victim)
    with pytest.raises(FormatError, match="order of time"):
        convert(tmp_path / "n", tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("component", "column", "values"),
    [
        ("camera_calibration", "key.camera_name", [1.5] * 5),
        ("camera_calibration", "key.camera_name", [[1]] * 5),
        ("camera_calibration", "width", ["wide"] * 5),
        ("camera_calibration", "width", [1 << 40] * 5),
        ("camera_calibration", "k1", ["x"] * 5),
        ("camera_image", "].image", [1 << 40] * 25),
        ("lidar_calibration", "beam_inclination.values", [7] * 5),
        ("lidar_calibration", "beam_inclination.values", ["x"] * 5),
        ("lidar", "return1.values", ["x"] * 25),
        ("lidar", "return1.values", [["x"]] * 25),
        ("lidar", "return1.values", [{"a": 1}] * 25),
        ("lidar", "return1.shape", ["x"] * 25),
        ("lidar_box", "].type", ["car"] * 100),
        ("lidar_box", "speed.x", ["fast"] * 100),
        ("vehicle_pose", "timestamp_micros", ["now"] * 5),
    ],
)
def test_v2_columns_of_another_type_are_refused(
    natives: dict[str, Path], tmp_path: Path, component: str, column: str, values: list[Any]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    root = Path(shutil.copytree(natives["v2"], tmp_path / "n"))
    (path,) = (root / "training" / component).iterdir()
    table = parquet.read_table(path)
    (at,) = (k for k, name in enumerate(table.schema.names) if name.endswith(column))
    columns = table.to_pydict() | {table.schema.names[at]: values[: len(table)]}
    columns = {name: rows[: len(values)] for name, rows in columns.items()}
    parquet.write_table(type(table).from_pydict(columns), path)
    with pytest.raises((FormatError, ConventionError)):
        for _ in waymo.read(root, only_scene(root), waymo.Params()).frames:
            pass


def test_v2_needs_its_vehicle_poses_for_every_row(natives: dict[str, Path], tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    shutil.copytree(natives["v2"], tmp_path / "n")
    victim = next((tmp_path / "n" / "training" / "vehicle_pose").glob("*.parquet"))
    pq.write_table(pq.read_table(victim).slice(0, 3), victim)
    with pytest.raises(FormatError, match="vehicle pose"):
        v2.heads(v2.open_tables(tmp_path / "n", Path("training"), victim.stem))
