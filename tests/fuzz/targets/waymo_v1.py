"""Waymo v1: the messages of a Frame, one by one and as a segment."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from datakit.errors import DatakitError

from .kit import EDITS, Target, edited_message, protobuf_field


def make(folder: Path) -> dict[str, Target]:
    from converters import waymo
    from converters.native.tfrecord import read_record, walk_records
    from converters.waymo import assemble, lidar, v1
    from converters.waymo.proto import message_class, parse
    from datakit.convert.api import SceneRef

    world = waymo.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    waymo.write_native(iter([world]), folder / "waymo", "v1")
    (file,) = (folder / "waymo").rglob("*.tfrecord")
    first, second = (parse("Frame", read_record(file, span, True)[0], "x") for span in walk_records(file))
    small = {
        kind: message_class(kind)(
            data=range(2 * 3 * depth), shape={"dims": [2, 3, depth]}
        ).SerializeToString()
        for kind, depth in (("MatrixFloat", 4), ("MatrixInt32", 6))
    }
    pose = message_class("MatrixFloat")(data=[0.1] * 36, shape={"dims": [2, 3, 6]}).SerializeToString()
    for message in (first, second):
        for laser in message.lasers:
            for each in (laser.ri_return1, laser.ri_return2):
                each.range_image_compressed = zlib.compress(small["MatrixFloat"])
                each.camera_projection_compressed = zlib.compress(small["MatrixInt32"])
                if each.range_image_pose_compressed:
                    each.range_image_pose_compressed = zlib.compress(pose)
        for beams in message.context.laser_calibrations:
            if beams.beam_inclinations:
                beams.beam_inclinations[:] = [-0.1, 0.1]
        # What is read of one of a kind is read of all; and a camera is what takes most of the time.
        del message.images[1:], message.laser_labels[3:], message.lasers[2:]
        camera = message.images[0].name
        kept = [each for each in message.context.camera_calibrations if each.name == camera]
        del message.context.camera_calibrations[:]
        message.context.camera_calibrations.extend(kept)
    context = message_class("Context")(name="x", stats=first.context.stats)
    context.camera_calibrations.append(first.context.camera_calibrations[0])
    context.laser_calibrations.append(first.context.laser_calibrations[0])
    place = protobuf_field(3, first.pose.SerializeToString())
    constant, other = v1.calibration(second, "x"), v1.head(second, "x")

    def range_image(data: bytes) -> None:
        """One return, packed here: first byte says which of its matrices the others are."""
        names = ("range_image_compressed", "camera_projection_compressed", "range_image_pose_compressed")
        matrices = [small["MatrixFloat"], small["MatrixInt32"], pose]
        matrices[data[0] % 3 if data else 0] = data[1:]
        packed = {name: zlib.compress(each, 1) for name, each in zip(names, matrices, strict=True)}
        image = v1._range_image(message_class("RangeImage")(**packed), "x")
        lidar.points_of_frame({1: (image, None)}, constant.lasers, np.eye(4), "x", only_seen=True)

    def matrix(data: bytes) -> None:
        for kind, dtype in (("MatrixFloat", np.float32), ("MatrixInt32", np.int32)):
            with contextlib.suppress(DatakitError):
                v1.read_matrix(data, kind, dtype, "x")

    def frame(data: bytes) -> None:
        message = parse("Frame", data, "x")
        v1.calibration(message, "x")
        v1.head(message, "x")
        v1.range_images(message, "x")

    def segment(message: Any) -> None:
        """A segment whose first frame is damaged, to its last raster."""
        heads = [v1.head(message, "x"), other]
        opened = assemble.open_segment(v1.calibration(message, "x"), heads, waymo.Params(), "x")
        assemble.scene_record(
            SceneRef(id="x", split="none", location={"form": "v1"}, fingerprint="0"), opened, waymo.Params()
        )
        rasters = (
            assemble.Rasters(dict(v1.pictures(each)), v1.range_images(each, "x"))
            for each in (message, second)
        )
        for _ in assemble.frames(opened, waymo.Params(), rasters, "x"):
            pass

    integers = message_class("MatrixInt32")(data=[1, -2, 300], shape={"dims": [3, 1, 1]}).SerializeToString()
    images = [image.SerializeToString() for image in first.images]
    return {
        "waymo-matrix": Target([integers], matrix),
        "waymo-calibration": Target(
            [context.SerializeToString()],
            lambda d: v1.calibration(parse("Frame", protobuf_field(1, d), "x"), "x"),
        ),
        "waymo-pose": Target([place], lambda d: v1.head(parse("Frame", d, "x"), "x")),
        "waymo-image": Target(
            [_without_picture(image) for image in images],
            lambda d: v1.head(parse("Frame", place + protobuf_field(4, d), "x"), "x"),
        ),
        "waymo-label": Target(
            [label.SerializeToString() for label in first.laser_labels[:3]],
            lambda d: v1.head(parse("Frame", place + protobuf_field(6, d), "x"), "x"),
        ),
        "waymo-laser": Target(
            [first.lasers[0].SerializeToString()],
            lambda d: v1.range_images(parse("Frame", protobuf_field(5, d), "x"), "x"),
        ),
        "waymo-range-image": Target(
            [b"\0" + small["MatrixFloat"], b"\1" + small["MatrixInt32"], b"\2" + pose], range_image
        ),
        "waymo-frame": Target([first.SerializeToString()], frame),
        "waymo-segment": Target([first.SerializeToString()], lambda d: segment(parse("Frame", d, "x"))),
        "waymo-values": Target(EDITS, lambda d: segment(edited_message(first, d))),
    }


def _without_picture(wire: bytes) -> bytes:
    """Shorten the JPEG of a serialised CameraImage."""
    from converters.waymo.proto import parse

    image = parse("CameraImage", wire, "x")
    image.image = b"\xff\xd8"
    return bytes(image.SerializeToString())
