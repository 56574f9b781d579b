"""features.json, dataset_info.json and the label file of a MOVi-E config, as TFDS writes them."""

from __future__ import annotations

from typing import Any

SET_NAME, SET_VERSION = "movi_e", "1.0.0"
#: The classes of instances/category in MOVi-C..F (challenges/movi/movi_e.py).
CATEGORIES = (
    "Action Figures",
    "Bag",
    "Board Games",
    "Bottles and Cans and Cups",
    "Camera",
    "Car Seat",
    "Consumer Goods",
    "Hat",
    "Headphones",
    "Keyboard",
    "Legos",
    "Media Cases",
    "Mouse",
    "None",
    "Shoe",
    "Stuffed Toys",
    "Toys",
)
_CORE = "tensorflow_datasets.core.features"


def features_json(width: int, height: int, num_frames: int) -> dict[str, Any]:
    """Declare the features of a MOVi-E record.

    Args:
        width: Of the stored images.
        height: Likewise.
        num_frames: T.
    """
    t, grid = num_frames, (height, width)
    return _dict(
        metadata=_dict(
            video_name=_text(),
            width=_tensor("int32"),
            height=_tensor("int32"),
            num_frames=_tensor("int32"),
            num_instances=_tensor("uint16"),
            depth_range=_tensor("float32", 2),
            forward_flow_range=_tensor("float32", 2),
            backward_flow_range=_tensor("float32", 2),
        ),
        background=_text(),
        camera=_dict(
            focal_length=_tensor("float32"),
            sensor_width=_tensor("float32"),
            field_of_view=_tensor("float32"),
            positions=_tensor("float32", t, 3),
            quaternions=_tensor("float32", t, 4),
        ),
        instances=_sequence(_instance_features(t)),
        events=_dict(collisions=_sequence(_collision_features())),
        video=_video("uint8", t, *grid, 3),
        normal=_video("uint16", t, *grid, 3),
        object_coordinates=_video("uint16", t, *grid, 3),
        segmentations=_sequence(_image("uint8", *grid, 1), t),
        depth=_sequence(_image("uint16", *grid, 1), t),
        forward_flow=_sequence(_tensor("uint16", *grid, 2), t),
        backward_flow=_sequence(_tensor("uint16", *grid, 2), t),
    )


def dataset_info(config: str, splits: dict[str, tuple[list[int], int]]) -> dict[str, Any]:
    """Describe a config.

    Args:
        config: "128x128".
        splits: Name -> records per shard, and payload bytes in all.
    """
    return {
        "citation": "",
        "configDescription": "analytic worlds in the layout of MOVi-E",
        "configName": config,
        "description": "Clips with closed-form truth, written in the layout of MOVi-E.",
        "fileFormat": "tfrecord",
        "name": SET_NAME,
        "releaseNotes": {SET_VERSION: "initial release"},
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                "numBytes": str(num_bytes),
                "shardLengths": [str(n) for n in lengths],
            }
            for name, (lengths, num_bytes) in splits.items()
        ],
        "version": SET_VERSION,
    }


def _instance_features(t: int) -> dict[str, Any]:
    return _dict(
        mass=_tensor("float32"),
        friction=_tensor("float32"),
        restitution=_tensor("float32"),
        positions=_tensor("float32", t, 3),
        quaternions=_tensor("float32", t, 4),
        velocities=_tensor("float32", t, 3),
        angular_velocities=_tensor("float32", t, 3),
        bboxes_3d=_tensor("float32", t, 8, 3),
        image_positions=_tensor("float32", t, 2),
        bboxes=_sequence(_box()),
        bbox_frames=_sequence(_tensor("int32")),
        visibility=_tensor("uint16", t),
        asset_id=_text(),
        category={
            "classLabel": {"numClasses": str(len(CATEGORIES))},
            "pythonClassName": f"{_CORE}.class_label_feature.ClassLabel",
        },
        scale=_tensor("float32"),
        is_dynamic=_tensor("bool"),
    )


def _collision_features() -> dict[str, Any]:
    return _dict(
        instances=_tensor("uint16", 2),
        frame=_tensor("int32"),
        force=_tensor("float32"),
        position=_tensor("float32", 3),
        image_position=_tensor("float32", 2),
        contact_normal=_tensor("float32", 3),
    )


def _shape(dims: tuple[int, ...]) -> dict[str, Any]:
    return {"dimensions": [str(n) for n in dims]} if dims else {}


def _tensor(dtype: str, *dims: int) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_CORE}.tensor_feature.Tensor",
        "tensor": {"dtype": dtype, "encoding": "none", "shape": _shape(dims)},
    }


def _image(dtype: str, *dims: int) -> dict[str, Any]:
    return {
        "image": {"dtype": dtype, "shape": _shape(dims)},
        "pythonClassName": f"{_CORE}.image_feature.Image",
    }


def _video(dtype: str, *dims: int) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_CORE}.video_feature.Video",
        "video": {"dtype": dtype, "encodingFormat": "png", "shape": _shape(dims)},
    }


def _box() -> dict[str, Any]:
    return {
        "boundingBox": {"bboxFormat": "REL_YXYX", "dtype": "float32", "shape": _shape((4,))},
        "pythonClassName": f"{_CORE}.bounding_boxes.BBoxFeature",
    }


def _text() -> dict[str, Any]:
    return {"pythonClassName": f"{_CORE}.text_feature.Text", "text": {}}


def _sequence(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_CORE}.sequence_feature.Sequence",
        "sequence": {"feature": feature, "length": str(length)},
    }


def _dict(**features: dict[str, Any]) -> dict[str, Any]:
    return {"featuresDict": {"features": features}, "pythonClassName": f"{_CORE}.features_dict.FeaturesDict"}
