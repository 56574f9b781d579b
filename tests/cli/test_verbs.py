from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import jsonschema
import pytest

from datakit.scene import open_scene
from datakit.schema import json_schema
from tests.tiny import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> Path:
    from datakit.cli import main

    root = tmp_path_factory.mktemp("native") / "raw"
    assert main(["world", "kubric", str(root), "--num-scenes", "2", "--frames", "6", "--size", "64x48"]) == 0
    return root


@pytest.fixture(scope="module")
def scenes(native, tmp_path_factory) -> Path:
    from datakit.convert import run

    out = tmp_path_factory.mktemp("scenes")
    assert run("kubric", native, out).exit_code == 0
    return out


def test_world_refuses_a_folder_with_something_in_it(cli, native, tmp_path):
    result = cli("world", "kubric", native)
    assert result.code == 2 and "not empty" in result.err
    (tmp_path / "empty").mkdir()
    options = ("--num-scenes", 1, "--frames", 2, "--size", "16x16")
    assert cli("world", "kubric", tmp_path / "empty", *options).code == 0
    assert any((tmp_path / "empty").iterdir()) and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "option", [("--size", "big"), ("--size", "0x4"), ("--form", "nope"), ("--motion", "x")]
)
def test_world_checks_its_options(cli, tmp_path, option):
    result = cli("world", "kubric", tmp_path / "out", *option)
    assert result.code == 2 and not (tmp_path / "out").exists()


def test_world_is_a_function_of_its_seed(cli, tmp_path):
    def tree(name: str, seed: int) -> dict[str, bytes]:
        options = ("--seed", seed, "--num-scenes", 1, "--frames", 2, "--size", "24x16", "--form", "tfds")
        assert cli("world", "kubric", tmp_path / name, *options).code == 0
        return {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }

    assert tree("a", 5) == tree("b", 5) != tree("c", 6)


def test_probe(cli, native, tmp_path):
    good = cli("probe", "kubric", native)
    assert good.code == 0 and "2 scene(s)" in good.out and "no problem" in good.out
    as_json = json.loads(cli("probe", "kubric", native, "--json").out)
    assert as_json["dataset"] == "kubric" and sum(as_json["num_scenes"].values()) == 2
    broken = shutil.copytree(native, tmp_path / "broken")
    next(broken.rglob("depth_00003.tiff")).unlink()
    bad = cli("probe", "kubric", broken)
    assert bad.code == 1 and "error" in bad.out and "depth_00003" in bad.out


def test_convert_prints_what_it_did(cli, native, tmp_path):
    planned = cli("convert", "kubric", native, tmp_path / "out", "--dry-run", "--limit", 1)
    assert planned.code == 0 and planned.out.count("convert ") == 1 and not (tmp_path / "out").exists()
    first = cli("convert", "kubric", native, tmp_path / "out", "--workers", 1, "--param", "frame_rate=12")
    assert first.code == 0 and "converted           2" in first.out
    second = cli("convert", "kubric", native, tmp_path / "out", "--workers", 1, "--param", "frame_rate=12")
    assert "already there       2" in second.out
    assert cli("convert", "kubric", native, tmp_path / "out", "--param", "frame_rate").code == 2


def test_convert_exits_with_1_when_a_scene_fails(cli, native, tmp_path):
    broken = shutil.copytree(native, tmp_path / "broken")
    victim = next(broken.rglob("rgba_00002.png"))
    victim.write_bytes(victim.read_bytes()[:100])
    result = cli("convert", "kubric", broken, tmp_path / "out", "--max-failures", 1, "--workers", 1)
    assert result.code == 1 and "rgba_00002.png" in result.out and "failed" in result.out
    assert len(list((tmp_path / "out").glob("*.h5"))) == 1


def test_info(cli, scenes):
    path = sorted(scenes.glob("*.h5"))[0]
    human = cli("info", path)
    assert human.code == 0 and "kubric" in human.out and "6 frames of 64 x 48" in human.out
    described = json.loads(cli("info", path, "--json").out)
    with open_scene(path) as scene:
        assert described["id"] == scene.id and described["provenance"]["fingerprint"]
    top_level = {key: value for key, value in json_schema("scene").items() if key != "$id"}
    for nested in ("views", "motion", "provenance"):
        top_level["properties"] = {**top_level["properties"], nested: {"type": "object"}}
    jsonschema.validate(described, top_level)
    lines = cli("info", scenes, "--json").out.splitlines()
    assert [json.loads(line)["dataset"] for line in lines] == ["kubric", "kubric"]


def test_validate(cli, scenes, tmp_path):
    assert cli("validate", scenes).code == 0
    write_tiny(tmp_path / "good.h5")
    data = bytearray((tmp_path / "good.h5").read_bytes())
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    result = cli("validate", tmp_path)
    assert result.code == 1 and "1 of 2 scene(s) are sound" in result.out
    assert "cut.h5: 1 problem" in result.out and "FormatError" in result.out
    assert cli("validate", tmp_path / "none").code == 1
    (tmp_path / "empty").mkdir()
    assert "No scene in this folder" in cli("validate", tmp_path / "empty").err


def test_converters(cli):
    assert "kubric" in cli("converters").out
    card = cli("converters", "kubric")
    assert card.code == 0 and "licence: Apache-2.0" in card.out and "check_crc=True" in card.out
    assert cli("converters", "nope").code == 2


def test_the_made_files_follow_the_tables(cli, tmp_path):
    assert cli("schema", "--root", tmp_path).code == 0
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert made
    for path in made:
        committed = ROOT / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), "run `make schema`"


@pytest.mark.slow
def test_certify_resume_rollup_and_show(cli, scenes, tmp_path):
    out = tmp_path / "certificates" / "kubric"
    first = cli("certify", scenes, "--out", out, "--workers", 1)
    assert first.code == 0, first.out
    names = sorted(path.name for path in out.iterdir())
    ids = [path.stem for path in sorted(scenes.glob("*.h5"))]
    assert names == [*(f"{name}.certificate.json" for name in ids), "summary.json"]
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in out.glob("*.certificate.json")}
    assert cli("certify", scenes, "--out", out, "--workers", 2).out == first.out
    after = {path.name: (path.stat().st_ino, path.read_bytes()) for path in out.glob("*.certificate.json")}
    assert after == before, "what is certified already is not measured again"
    cli("certify", scenes, "--out", out, "--workers", 1, "--seed", 1)
    assert json.loads((out / names[0]).read_text())["seed"] == 1

    metrics, plots = tmp_path / "m" / "metrics.json", tmp_path / "m" / "plots.csv"
    assert cli("rollup", tmp_path / "certificates", "--metrics", metrics, "--plots", plots).code == 0
    numbers = json.loads(metrics.read_text())["kubric"]
    assert numbers["scenes"] == 2 and sum(numbers["verdicts"].values()) == 2
    header, *rows = plots.read_text().splitlines()
    assert header.startswith("source,scene,check,measure") and len(rows) >= 2
    assert cli("rollup", scenes, "--metrics", metrics).code == 1

    page = tmp_path / "report.html"
    scene = scenes / f"{ids[0]}.h5"
    assert cli("show", scene, "-o", page, "--certificate", out / names[0]).code == 0
    assert "<html" in page.read_text()[:500]
    (tmp_path / "bad.json").write_text("{")
    assert cli("show", scene, "-o", page, "--certificate", tmp_path / "bad.json").code == 1


@pytest.mark.slow
def test_certify_says_fail(cli, scenes, tmp_path):
    limits = tmp_path / "strict.yaml"
    source = (ROOT / "datakit" / "certify" / "thresholds.yaml").read_text()
    import yaml

    raw = yaml.safe_load(source)
    for measures in raw["checks"].values():
        for entry in measures.values():
            for kind, bounds in entry.items():
                if isinstance(bounds, dict):
                    is_lower = "warn" in bounds and "fail" in bounds and bounds["warn"] > bounds["fail"]
                    entry[kind] = {key: 1e9 if is_lower else -1.0 for key in bounds}
    limits.write_text(yaml.safe_dump(raw))
    out = tmp_path / "out"
    result = cli("certify", scenes, "--out", out, "--thresholds", limits, "--workers", 1)
    assert result.code == 1 and "2 fail" in result.out
    allowed = cli("certify", scenes, "--out", out, "--thresholds", limits, "--allow-fail", "--workers", 1)
    assert allowed.code == 0


@pytest.mark.slow
def test_certify_names_unreadable_scenes_and_prunes(cli, scenes, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    good = sorted(scenes.glob("*.h5"))[0]
    shutil.copy(good, folder)
    (folder / "bad.h5").write_bytes(b"not a scene")
    out = tmp_path / "out"
    out.mkdir()
    (out / "gone.certificate.json").write_text("{}")
    result = cli("certify", folder, "--out", out, "--allow-fail", "--prune", "--workers", 2)
    assert result.code == 1 and "bad.h5: FormatError" in result.err
    assert sorted(path.name for path in out.iterdir()) == [f"{good.stem}.certificate.json", "summary.json"]


@pytest.mark.parametrize(
    ("verb", "step", "options"),
    [
        ("certify", "datakit.certify.certify_scene", ("--workers", 1)),
        ("covisibility", "datakit.covisibility.measure_covisibility", ()),
        ("pack", "datakit.shards.pack.run_task", ("--min-level", "none", "--workers", 1)),
    ],
)
def test_what_is_interrupted_says_that_it_goes_on(cli, scenes, tmp_path, monkeypatch, verb, step, options):
    place, name = step.rsplit(".", 1)
    module = import_module(place)
    work, made = getattr(module, name), []

    def interrupted(*args, **kwargs):
        if made:
            raise KeyboardInterrupt
        made.append(args)
        return work(*args, **kwargs)

    target = (tmp_path,) if verb == "pack" else ("--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        result = cli(verb, scenes, *target, *options)
        assert result.code == 130 and "the same command goes on" in result.err
    done: list[object] = []
    monkeypatch.setattr(module, name, lambda *args, **kwargs: done.append(args) or work(*args, **kwargs))
    assert cli(verb, scenes, *target, *options).code == 0
    assert len(done) == 1, "of two scenes one was finished before"
