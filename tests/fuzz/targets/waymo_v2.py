"""Waymo v2: the bytes of a table, and sound tables of odd values."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from .kit import EDITS, Target, edited


def make(folder: Path) -> dict[str, Target]:
    import pyarrow
    import pyarrow.parquet as parquet

    from converters import waymo
    from converters.waymo import v2

    world = waymo.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    waymo.write_native(iter([world]), folder / "waymo", "v2")
    paths = {path.parent.name: path for path in (folder / "waymo").rglob("*.parquet")}
    good = {name: parquet.read_table(path).to_pylist() for name, path in paths.items()}
    for name, rows in good.items():
        good[name] = [{key: _shorter(key, value) for key, value in row.items()} for row in rows]

    sound = {name: pyarrow.Table.from_pylist(rows[:1]) for name, rows in good.items()}
    (stamp,) = sound["vehicle_pose"].column("key.frame_timestamp_micros").to_pylist()

    def component(name: str, beside: tuple[str, ...], use: Callable[[v2.Tables], object]) -> Target:
        """One component with other values, of the types that pyarrow finds for them, and sound ones beside it."""
        tables = v2.Tables({each: paths[each] for each in (name, *beside)}, "x")

        def values(data: bytes) -> None:
            try:
                columns = {key: pyarrow.array(rows) for key, rows in edited(rows_of, data).items()}
                held = {**sound, name: pyarrow.table(columns)}
            except Exception:  # Arrow's business, not the parser's
                return

            @contextlib.contextmanager
            def opened(path: Path) -> Iterator[Any]:
                yield _InMemory(held[path.parent.name])

            with mock.patch.object(v2, "_open", opened):
                use(tables)

        rows_of = {key: [value] for key, value in good[name][0].items()}
        return Target(EDITS, values)

    def calibration(tables: v2.Tables) -> object:
        return v2.calibration(tables, "x")

    def rasters(tables: v2.Tables) -> object:
        return list(v2.rasters(tables, [stamp]))

    def raw(data: bytes) -> None:
        """The bytes of the table of poses, which Arrow reads."""
        paths["vehicle_pose"].write_bytes(data)
        tables = v2.Tables({"vehicle_pose": paths["vehicle_pose"]}, "x")
        v2.count_rows(tables, "vehicle_pose")
        v2.heads(tables)

    small = io.BytesIO()
    parquet.write_table(sound["vehicle_pose"], small, compression="none", use_dictionary=False)
    return {
        "waymo-v2-cameras": component("camera_calibration", (), calibration),
        "waymo-v2-lasers": component("lidar_calibration", (), calibration),
        "waymo-v2-stats": component("stats", (), calibration),
        "waymo-v2-poses": component("vehicle_pose", (), v2.heads),
        "waymo-v2-images": component("camera_image", ("vehicle_pose",), v2.heads),
        "waymo-v2-boxes": component("lidar_box", ("vehicle_pose",), v2.heads),
        "waymo-v2-synced-boxes": component("lidar_camera_synced_box", (), v2.heads),
        "waymo-v2-pictures": component("camera_image", (), rasters),
        "waymo-v2-lidar": component("lidar", (), rasters),
        "waymo-v2-projections": component("lidar_camera_projection", ("lidar",), rasters),
        "waymo-v2-parquet": Target([small.getvalue()], raw),
    }


def _shorter(name: str, value: Any) -> Any:
    """Cut range images to two rows of three pixels, and lists of beams to two."""
    channels = 4 if name.startswith("[LiDARComponent]") else 6
    if name.endswith(".shape"):
        return [2, 3, channels]
    if name.endswith(("return1.values", "return2.values")):
        return value[: 6 * channels]
    return value[:2] if name.endswith("beam_inclination.values") and value else value


class _InMemory:
    """A table where `pyarrow.parquet.ParquetFile` is asked for."""

    def __init__(self, table: Any) -> None:
        self._table, self.schema_arrow = table, table.schema

    def iter_batches(self, batch_size: int, columns: list[str]) -> Any:
        return self._table.select(columns).to_batches(max_chunksize=batch_size)
