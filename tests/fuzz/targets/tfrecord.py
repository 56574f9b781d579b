"""TFRecord framing, of Kubric and Waymo."""

from __future__ import annotations

from pathlib import Path

from .kit import Target, right_records


def make(folder: Path) -> dict[str, Target]:
    from converters.native.tfrecord import read_record, walk_records

    path = folder / "x.tfrecord"

    def records(data: bytes) -> None:
        path.write_bytes(data)
        for span in walk_records(path):
            read_record(path, span, True)

    whole = right_records(b"payload")
    return {
        "tfrecord": Target([b"payload"], lambda data: records(right_records(data))),
        "tfrecord-raw": Target([whole, whole + right_records(b"")], records),
    }
