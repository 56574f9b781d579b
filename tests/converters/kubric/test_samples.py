"""Clips of the real renderer and records of Kubric's own builder, which owe this converter nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import converters.kubric as kubric
from converters.kubric import write_common
from converters.kubric.example import decode_ints, parse_example
from converters.kubric.write_example import _example_class
from converters.kubric.write_features import features_json
from converters.kubric.write_tfds import frame_record
from converters.native.tfrecord import RecordSpan, read_record, walk_records
from datakit.scene import decode_image, validate_scene

from .clips import PARAMS, open_clip
from .consistency import flow_errors, object_coordinate_errors

# The renderer's own layers agree to 0.004 px (median 0.0014) and 0.3 mm; these are the project's limits.
MEDIAN_PX, P99_PX, P99_METRES = 0.02, 0.1, 1e-3


@pytest.fixture(scope="module")
def roots(samples_dir: Path) -> dict[str, Path]:
    return {"worker": samples_dir / "kubric", "tfds": samples_dir / "kubric_tfds"}


@pytest.mark.parametrize("form", ["worker", "tfds"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_layers_agree_with_each_other(roots: dict[str, Path], tmp_path: Path, form: str, index: int) -> None:
    with open_clip(roots[form], tmp_path, index) as scene:
        assert validate_scene(scene.path) == []
        for direction in ("forward", "backward"):
            for errors in flow_errors(scene, direction):
                assert errors.size > 10_000
                assert np.median(errors) <= MEDIAN_PX and np.percentile(errors, 99) <= P99_PX
        errors = object_coordinate_errors(scene)
        assert errors.size > 10_000
        assert np.percentile(errors, 99) <= P99_METRES


# The builder shuffled the clips: record 0 of train is worker clip 3, record 1 is clip 2.
@pytest.mark.parametrize(("record", "clip"), [(0, 1), (1, 0)])
def test_tfds_record_holds_the_worker_clip(
    roots: dict[str, Path], tmp_path: Path, record: int, clip: int
) -> None:
    with (
        open_clip(roots["tfds"], tmp_path, record) as tfds,
        open_clip(roots["worker"], tmp_path, clip) as worker,
    ):
        a, b = tfds.views["camera"], worker.views["camera"]
        assert tfds.metadata["video_name"] == worker.id
        assert (a.size, a.num_frames) == (b.size, b.num_frames)
        low, high = tfds.metadata["depth_range"]
        step = (high - low) / 65535
        for t in range(a.num_frames):
            assert np.array_equal(a.rgb(t), b.rgb(t))
            assert np.array_equal(a.instances(t), b.instances(t))
            assert np.array_equal(a.normals(t), b.normals(t))
            assert np.array_equal(a.object_coords(t), b.object_coords(t))
            # Depth was rounded to 16 bits along the ray, which is longer than z.
            assert np.nanmax(np.abs(a.z_depth(t) - b.z_depth(t))) <= 0.5 * step + 1e-5
            for direction in ("forward", "backward"):
                # Same codes; the range went through float32.
                assert np.abs(a.flow(t, direction) - b.flow(t, direction)).max() < 4e-6
        # float32 metadata: metres of order 10, unit quaternions.
        assert np.abs(a.world_from_cam - b.world_from_cam).max() < 1e-6
        assert np.abs(a.intrinsics - b.intrinsics).max() < 1e-4
        assert np.abs(tfds.motion.world_from_instance - worker.motion.world_from_instance).max() < 1e-6
        box_a, box_b = (s.motion.world_from_box[:, 1:] for s in (tfds, worker))
        assert np.abs(box_a - box_b).max() < 2e-6
        assert tfds.motion.instance_names == worker.motion.instance_names
        assert tfds.metadata["collisions"]["count"] == worker.metadata["collisions"]["count"]


def test_full_size_sample_is_measured_at_pixel_centres(roots: dict[str, Path]) -> None:
    for ref in kubric.scenes(roots["tfds"], PARAMS):
        record = kubric.read(roots["tfds"], ref, PARAMS).record
        sampling = record.metadata["aux_sampling"]
        assert sampling["how"] == "measured" and sampling["step"] == 1
        assert np.abs(np.array(sampling["measured_px"]) - 0.5).max() < 0.002
        assert all(layer.intrinsics is None for layer in record.views["camera"].layers.values())


def test_source_images_pass_through_untouched(roots: dict[str, Path], tmp_path: Path) -> None:
    names = {
        "rgb": "rgba",
        "instances": "segmentation",
        "flow_backward": "backward_flow",
        "normals_world": "normal",
    }
    with open_clip(roots["worker"], tmp_path) as scene:
        for layer, native in names.items():
            path = roots["worker"] / "2" / f"{native}_00005.png"
            assert scene.views["camera"].encoded(layer, 5) == path.read_bytes()


def test_provenance_lists_every_file_with_its_hash(roots: dict[str, Path]) -> None:
    import hashlib

    for root in roots.values():
        stream = kubric.read(root, next(iter(kubric.scenes(root, PARAMS))), PARAMS)
        list(stream.frames)
        assert len({(s.path, s.offset) for s in stream.sources}) == len(stream.sources)
        for source in stream.sources:
            data = (root / source.path).read_bytes()[source.offset : source.offset + source.size]
            assert hashlib.sha256(data).hexdigest() == source.sha256
    # Every file of the worker clip was used.
    files = {p.name for p in (roots["worker"] / "2").iterdir()}
    stream = kubric.read(roots["worker"], next(iter(kubric.scenes(roots["worker"], PARAMS))), PARAMS)
    list(stream.frames)
    assert {Path(s.path).name for s in stream.sources} == files


def test_probe_finds_nothing_wrong(roots: dict[str, Path]) -> None:
    worker, tfds = kubric.probe(roots["worker"]), kubric.probe(roots["tfds"])
    assert (worker.num_scenes, worker.problems) == ({"none": 3}, ())
    assert (tfds.num_scenes, tfds.problems) == ({"train": 2, "validation": 1}, ())


def test_ids_name_set_config_split_shard_and_record(roots: dict[str, Path]) -> None:
    assert [ref.id for ref in kubric.scenes(roots["tfds"], PARAMS)] == [
        "movi_e-128x128-train-00000-00000",
        "movi_e-128x128-train-00000-00001",
        "movi_e-128x128-validation-00000-00000",
    ]
    assert [ref.id for ref in kubric.scenes(roots["worker"], PARAMS)] == ["2", "3", "4"]


def test_one_root_above_both_forms(roots: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for form, root in roots.items():
        target = tmp_path / "raw" / form
        target.mkdir()
        for path in root.rglob("*"):
            if path.is_file() and ("/2/" in str(path) or form == "tfds") and "/." not in str(path):
                copy = target / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    ids = [ref.id for ref in kubric.scenes(tmp_path / "raw", PARAMS)]
    assert ids == sorted(ids[:3]) + ["worker-2"]


# --- the writer against what Kubric itself wrote ---


def test_writer_declares_the_builders_features(roots: dict[str, Path]) -> None:
    official = json.loads(next(roots["tfds"].rglob("features.json")).read_text())
    assert features_json(128, 128, 24) == official


def test_writer_frames_records_as_tensorflow_does(roots: dict[str, Path]) -> None:
    shard = next(roots["tfds"].rglob("*-train.tfrecord-*"))
    data = shard.read_bytes()
    for span in walk_records(shard):
        assert (
            frame_record(data[span.offset + 12 : span.offset + span.length - 4])
            == (data[span.offset : span.offset + span.length])
        )


def test_hand_parser_agrees_with_the_protobuf_runtime(roots: dict[str, Path]) -> None:
    shard = next(roots["tfds"].rglob("*-validation.tfrecord-*"))
    span = next(iter(walk_records(shard)))
    payload, _ = read_record(shard, RecordSpan(span.offset, span.length), check_crc=True)
    official = _example_class().FromString(payload).features.feature
    features = parse_example(payload, "x")
    assert set(features) == set(official)
    for key, feature in features.items():
        if feature.kind == "bytes":
            assert [bytes(c) for c in feature.chunks] == list(official[key].bytes_list.value)
        elif feature.kind == "floats":
            found = np.frombuffer(b"".join(feature.chunks), "<f4")
            assert np.array_equal(found, np.array(official[key].float_list.value, np.float32))
        else:
            assert np.array_equal(decode_ints(feature, np.int64, key), official[key].int64_list.value)


def test_writers_boxes_visibility_and_camera_are_kubrics(roots: dict[str, Path]) -> None:
    for clip in ("2", "4"):
        folder = roots["worker"] / clip
        text = (folder / "metadata.json").read_text()
        raw = json.loads(text)
        assert json.dumps(raw, indent=4, sort_keys=True) == text
        files = sorted(folder.glob("segmentation_*.png"))
        ids = np.stack([decode_image(path.read_bytes(), path.name) for path in files])
        for k, instance in enumerate(raw["instances"], start=1):
            boxes = write_common._boxes(ids == k)
            assert [box for _, box in boxes] == instance["bboxes"]
            assert [t for t, _ in boxes] == instance["bbox_frames"]
            assert (ids == k).sum(axis=(1, 2)).tolist() == instance["visibility"]
        totals = [sum(instance["visibility"]) for instance in raw["instances"]]
        assert totals == sorted(totals, reverse=True)


def test_native_images_have_the_renderers_headers(roots: dict[str, Path], tmp_path: Path) -> None:
    from .clips import clip_folder, write_clip

    ours = clip_folder(write_clip(tmp_path))
    for name in ("rgba", "segmentation", "normal", "object_coordinates", "forward_flow", "backward_flow"):
        headers = [(f / f"{name}_00000.png").read_bytes()[24:29] for f in (ours, roots["worker"] / "2")]
        assert headers[0] == headers[1], name
    tags = []
    for folder in (ours, roots["worker"] / "2"):
        with Image.open(folder / "depth_00000.tiff") as image:
            tags.append({key: image.tag_v2[key] for key in (258, 259, 262, 277, 339)})
            assert json.loads(image.tag_v2[270])["shape"] == [*image.size[::-1], 1]
    assert tags[0] == tags[1]
    assert {p.name for p in ours.iterdir() if p.suffix == ".json"} == {
        p.name for p in (roots["worker"] / "2").iterdir() if p.suffix == ".json"
    }
    for name in ("metadata.json", "data_ranges.json", "events.json"):
        mine, theirs = (json.loads((f / name).read_text()) for f in (ours, roots["worker"] / "2"))
        assert set(mine) == set(theirs)
    mine, theirs = (json.loads((f / "metadata.json").read_text()) for f in (ours, roots["worker"] / "2"))
    for part in ("metadata", "camera"):
        assert set(mine[part]) == set(theirs[part])
    # Mesh statistics belong to assets that analytic shapes do not have.
    mesh = {"nr_faces", "nr_vertices", "surface_area", "volume"}
    assert set(mine["instances"][0]) == set(theirs["instances"][0]) - mesh
