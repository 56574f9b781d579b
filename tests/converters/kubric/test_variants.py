"""The published sets differ in features and age: A and B have shapes for assets, older TFDS wrote less JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.kubric as kubric

from .clips import FRAMES, PARAMS, SIZE, drain, edit_json, edit_record, shard_file, small_world, write_clip


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "raw", "tfds")


def first(root: Path, params: object = PARAMS) -> object:
    return kubric.read(root, next(iter(kubric.scenes(root, params))), params).record


def test_movi_b_names_instances_by_shape_and_has_a_background_colour(raw: Path) -> None:
    def as_movi_b(features) -> None:  # noqa: ANN001
        num = len(features["instances/asset_id"].bytes_list.value)
        for key in ("background", "instances/asset_id", "instances/category", "instances/is_dynamic"):
            del features[key]
        features["background_color"].float_list.value.extend([0.25, 0.5, 0.75])
        features["instances/shape_label"].int64_list.value.extend([k % 2 for k in range(num)])
        features["instances/color"].float_list.value.extend([0.5] * 3 * num)

    edit_record(raw, as_movi_b)
    folder = shard_file(raw).parent
    (folder / "instances-category.labels.txt").unlink()
    (folder / "instances-shape_label.labels.txt").write_text("cube\ncylinder\n")
    record = first(raw)
    assert record.motion.instance_names[:3] == ("background", "cube", "cylinder")
    assert record.metadata["background_color"] == [0.25, 0.5, 0.75] and "background" not in record.metadata
    assert record.metadata["instances"][1]["shape_label"] == "cylinder"
    assert record.metadata["instances"][0]["color"] == [0.5, 0.5, 0.5]
    drain(raw)


def test_movi_f_keeps_its_motion_blur(raw: Path) -> None:
    edit_record(raw, lambda f: f["metadata/motion_blur"].float_list.value.append(0.5))
    assert first(raw).metadata["motion_blur"] == 0.5


def test_json_of_an_older_tfds(raw: Path) -> None:
    """No encodings, no template, no config name: the folder and the default template stand in."""

    def strip(node: object) -> None:
        if isinstance(node, dict):
            for key in ("encoding", "encodingFormat"):
                node.pop(key, None)
            for value in node.values():
                strip(value)

    before = [ref.id for ref in kubric.scenes(raw, PARAMS)]
    edit_json(next(raw.rglob("features.json")), strip)

    def older(info: dict) -> None:
        del info["configName"], info["fileFormat"], info["splits"][0]["filepathTemplate"]

    edit_json(next(raw.rglob("dataset_info.json")), older)
    assert [ref.id for ref in kubric.scenes(raw, PARAMS)] == before
    drain(raw)


def test_other_shard_template(raw: Path) -> None:
    template = "{SPLIT}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}"
    shard = shard_file(raw)
    shard.rename(shard.with_name("train_00000_00001.tfrecord"))
    edit_json(shard.parent / "dataset_info.json", lambda i: i["splits"][0].update(filepathTemplate=template))
    drain(raw)


def test_layers_that_features_json_does_not_declare_are_absent(raw: Path) -> None:
    def drop(features: dict) -> None:
        for key in ("normal", "backward_flow"):
            del features["featuresDict"]["features"][key]

    edit_json(next(raw.rglob("features.json")), drop)
    layers = set(first(raw).views["camera"].layers)
    assert layers == {"rgb", "z_depth", "instances", "flow_forward", "object_coords"}
    drain(raw)
    assert [p.severity for p in kubric.probe(raw).problems] == ["warning", "warning"]


def test_frame_rate_of_records_is_a_parameter(raw: Path) -> None:
    record = first(raw, kubric.Params(frame_rate=24.0))
    assert np.allclose(record.views["camera"].times, np.arange(FRAMES) / 24)
    assert record.provenance.params["frame_rate"] == 24.0


@pytest.mark.parametrize("form", ["worker", "tfds"])
def test_a_clip_without_instances_is_all_background(tmp_path: Path, form: str) -> None:
    from dataclasses import replace

    world = replace(small_world(1), instances=())
    root = write_clip(tmp_path / "raw", form, world)
    params = kubric.Params(render_size=SIZE[0])
    record = first(root, params)
    assert record.motion.instance_ids.tolist() == [0]
    drain(root, params)
