from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit import open_scene
from datakit.errors import FormatError, QualityError, UsageError
from datakit.scene import write_scene
from datakit.shards import PackParams, ShardSet, open_set, pack, verify
from datakit.shards.tar import BLOCK
from datakit.shards.work import WORK
from tests.tiny import tiny_stream, write_tiny

from .conftest import PARAMS, certify


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_bytes_depend_on_neither_workers_nor_order(scenes: list[Path], packed: Path, tmp_path: Path) -> None:
    report = pack(scenes[::-1], tmp_path / "set", params=PARAMS, workers=2, progress=False)
    assert report.num_made == report.num_clips == 4
    found, want = contents(tmp_path / "set"), contents(packed)
    assert sum(name.endswith(".tar") for name in want) > 1
    assert set(found) == set(want)
    assert all(found[name] == want[name] for name in want)


def _check_greedy(shard_set: ShardSet) -> None:
    """Every shard is as full as it may be."""
    columns = shard_set.columns
    end = (columns["member_offset"] + columns["member_length"]).max(axis=1)
    end += -end % BLOCK
    starts = np.flatnonzero(np.diff(columns["shard"], prepend=-1))
    size = np.where(np.isin(np.arange(len(end)), starts), end, np.diff(end, prepend=0))
    for first, last in zip(starts, [*starts[1:], len(end)], strict=True):
        assert end[last - 1] <= PARAMS.shard_bytes or last == first + 1
        assert last == len(end) or end[last - 1] + size[last] > PARAMS.shard_bytes


def test_report_and_manifest_agree(packed: Path, scenes: list[Path]) -> None:
    shard_set = open_set(packed)
    assert set(contents(packed)) == {"manifest.json", "index.safetensors", "scenes.jsonl"} | {
        shard["name"] for shard in shard_set.manifest["shards"]
    }
    assert shard_set.manifest["totals"]["clips"] == 4
    assert shard_set.manifest["totals"]["frames"] == 16
    _check_greedy(shard_set)
    assert [d["name"] for d in shard_set.manifest["datasets"]] == ["tiny", "world"]
    assert shard_set.manifest["params"] == PARAMS.to_dict()
    assert [shard_set.key(i) for i in range(2)] == ["tiny-square-cam-000000", "tiny-square-cam-000002"]
    assert shard_set.columns["start_frame"].tolist() == [0, 2, 0, 1]
    assert [shard_set.names_of("certificate")[c] for c in shard_set.columns["certificate"]] == [
        "pass",
        "pass",
        "warn",
        "warn",
    ]
    again = pack(scenes, packed, params=PARAMS, progress=False)
    assert again.num_made == 0
    assert again.manifest_sha256 == shard_set.manifest_sha256


def test_short_scene_gives_one_short_clip(scenes: list[Path], tmp_path: Path) -> None:
    pack(scenes[:1], tmp_path, progress=False)
    assert open_set(tmp_path).num_frames.tolist() == [6]


_SCRIPT = """
import sys
from pathlib import Path
import datakit.shards.work as work
from tests.shards.conftest import PARAMS
from datakit.shards import pack

if __name__ == "__main__":
    out = Path(sys.argv[1])
    real = work.Assembler.add
    def add(self, number, entry):
        real(self, number, entry)
        if number == int(sys.argv[2]):
            print("here", flush=True)
            import time
            time.sleep(60)
    work.Assembler.add = add
    pack(sys.argv[3:], out, params=PARAMS, workers=2, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 2])
def test_goes_on_after_kill(scenes: list[Path], packed: Path, tmp_path: Path, at: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    out = tmp_path / "set"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(["", str(Path(__file__).parents[2]), *sys.path])
    }
    process = subprocess.Popen(
        [sys.executable, script, out, str(at), *map(str, scenes)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    deadline = time.monotonic() + 60
    while len(list((out / WORK).glob("0*.json"))) < at + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    (out / "shard-000009.tar.partial").write_bytes(b"left by the kill")
    report = pack(scenes, out, params=PARAMS, progress=False)
    assert report.num_made < report.num_clips
    assert contents(out) == contents(packed)


def test_finished_shards_are_not_made_again(
    scenes: list[Path], packed: Path, tmp_path: Path, monkeypatch
) -> None:
    """Stop inside the second shard: the first stays, and a damaged fragment is made again."""
    from datakit.shards import work

    module = sys.modules["datakit.shards.pack"]

    real = work.Assembler.finish

    def stop_at_second(self: work.Assembler) -> None:
        if len(self.shards) == 1:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(work.Assembler, "finish", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        pack(scenes, tmp_path, params=PARAMS, progress=False)
    monkeypatch.setattr(work.Assembler, "finish", real)
    first = tmp_path / "shard-000000.tar"
    before = first.stat().st_mtime_ns
    fragments = sorted((tmp_path / WORK).glob("0*.tar"))
    fragments[0].write_bytes(b"short")
    made = []
    monkeypatch.setattr(module, "run_task", lambda task: made.append(task.number) or work.run_task(task))
    pack(scenes, tmp_path, params=PARAMS, progress=False)
    assert first.stat().st_mtime_ns == before
    assert made[0] == int(fragments[0].stem)
    assert 0 not in made
    assert contents(tmp_path) == contents(packed)


def test_lost_notes_of_finished_shards_are_made_again(
    scenes: list[Path], packed: Path, tmp_path: Path, monkeypatch
) -> None:
    module = sys.modules["datakit.shards.pack"]

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_write_tables", stop)
        pack(scenes, tmp_path, params=PARAMS, progress=False)
    (tmp_path / WORK / "00000001.json").unlink()
    (tmp_path / "shard-000001.tar").unlink()
    pack(scenes, tmp_path, params=PARAMS, progress=False)
    assert contents(tmp_path) == contents(packed)


def test_unfinished_work_of_another_plan_is_dropped(scenes: list[Path], packed: Path, tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "plan").write_text("another")
    (tmp_path / WORK / "00000000.json").write_text("{}")
    (tmp_path / "shard-000007.tar").write_bytes(b"of it")
    pack(scenes, tmp_path, params=PARAMS, progress=False)
    assert contents(tmp_path) == contents(packed)


def test_another_set_is_only_replaced_on_request(scenes: list[Path], packed: Path, tmp_path: Path) -> None:
    pack(scenes, tmp_path, params=PARAMS, progress=False)
    other = replace(PARAMS, clip_frames=6)
    with pytest.raises(UsageError, match="another shard set"):
        pack(scenes, tmp_path, params=other, progress=False)
    assert contents(tmp_path) == contents(packed)
    report = pack(scenes, tmp_path, params=other, overwrite=True, progress=False)
    assert report.num_clips == 2
    assert verify(tmp_path) == []


def test_scenes_below_the_level_are_refused(tmp_path: Path) -> None:
    good, bad, none = (tmp_path / f"{name}.h5" for name in ("good", "bad", "none"))
    for path in (good, bad, none):
        stream = tiny_stream()
        write_scene(path, replace(stream, record=replace(stream.record, id=path.stem)))
    certify(good)
    certify(bad, "fail")
    with pytest.raises(QualityError, match="2 scene"):
        pack([good, bad, none], tmp_path / "set", progress=False)
    assert not (tmp_path / "set").exists()
    report = pack([good, bad, none], tmp_path / "set", max_refused=2, progress=False)
    assert report.refused == (("tiny/bad", "fail"), ("tiny/none", "none"))
    assert open_set(tmp_path / "set").manifest["refused"][0] == {
        "dataset": "tiny",
        "id": "bad",
        "level": "fail",
    }
    told = pack([good, bad, none], tmp_path / "all", params=PackParams(min_level="none"), progress=False)
    assert told.num_scenes == 3


def test_certificate_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    certify(path)
    write_tiny(path, num_frames=3)
    with pytest.raises(QualityError, match="another scene file"):
        pack([path], tmp_path / "set", progress=False)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"verdict": "fine", "scene_sha256": ""}'])
def test_unreadable_certificate_is_an_error(tmp_path: Path, content: str) -> None:
    path = write_tiny(tmp_path / "s.h5")
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "s.certificate.json").write_text(content)
    with pytest.raises(FormatError):
        pack([path], tmp_path / "set", certificates=folder, progress=False)


def test_views_without_colour_are_left_out_and_named(tmp_path: Path) -> None:
    stream = tiny_stream()
    view = stream.record.views["cam"]
    blind = replace(view, layers={"z_depth": view.layers["z_depth"]})
    record = replace(stream.record, views={"cam": view, "blind": blind})
    frames = list(stream.frames)
    frames += [replace(f, view="blind", layers={"z_depth": f.layers["z_depth"]}) for f in frames]
    write_scene(tmp_path / "s.h5", replace(stream, record=record, frames=iter(frames)))
    certify(tmp_path / "s.h5")
    report = pack([tmp_path / "s.h5"], tmp_path / "set", progress=False)
    assert report.views_left_out == ("tiny/square/blind",)
    assert report.num_clips == 1


def test_same_scene_twice_and_colliding_keys(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    with pytest.raises(UsageError, match="comes twice"):
        pack([path, path], tmp_path / "set", params=PackParams(min_level="none"), progress=False)
    for name in ("a.b", "a_b"):
        stream = tiny_stream()
        write_scene(tmp_path / f"{name}.h5", replace(stream, record=replace(stream.record, id=name)))
    with pytest.raises(UsageError, match="one key"):
        pack(
            [tmp_path / "a.b.h5", tmp_path / "a_b.h5"],
            tmp_path / "set",
            params=PackParams(min_level="none"),
            progress=False,
        )
    with pytest.raises(UsageError, match="nothing to pack"):
        pack([], tmp_path / "set", progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        {"clip_frames": 0},
        {"stride": 0},
        {"max_side": 1},
        {"rgb": "webp"},
        {"depth": "mm"},
        {"min_level": "good"},
        {"jpeg_quality": 101},
        {"depth_edge": 0},
        {"shard_bytes": 0},
    ],
)
def test_bad_parameters_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        PackParams(**bad)  # type: ignore[arg-type]


def test_damaged_scene_stops_with_its_name(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5")
    with open_scene(path) as scene:
        blob = scene.views["cam"].encoded("instances", 2)
    data = bytearray(path.read_bytes())
    at = data.find(blob)
    assert at > 0
    data[at + len(blob) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FormatError, match="s.h5"):
        pack([path], tmp_path / "set", params=PackParams(min_level="none"), progress=False)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_scenes_table_names_every_source(packed: Path) -> None:
    lines = [json.loads(line) for line in (packed / "scenes.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines][0] == "square"
    assert lines[0]["provenance"]["sources"] == [
        {"path": "made/up", "size": 1, "sha256": "0" * 64, "offset": 0}
    ]
