from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datakit import open_scene
from datakit.convert import run
from datakit.convert.lock import LOCK_NAME, locked_folder
from datakit.errors import ConventionError, LayoutError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_converts_every_scene_and_reports(plugin, native, tmp_path):
    report = run("fakeset", native(a="ok", bt="ok"), tmp_path / "out")
    assert report.converted == ("a", "bt") and report.exit_code == 0
    assert sorted(contents(tmp_path / "out")) == ["a.h5", "bt.h5", "report.json"]
    with open_scene(tmp_path / "out" / "bt.h5") as scene:
        assert (scene.id, scene.split) == ("bt", "test")
        made = scene.provenance
        assert (made["converter"], made["converter_version"]) == ("fakeset", "1")
        assert made["params"] == {"num_frames": 3, "names": []}
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["counts"] == {"there": 2, "failed": 0, "not converted": 0}
    assert stored["scenes"]["bt"]["split"] == "test"


def test_a_second_run_touches_nothing(plugin, native, tmp_path):
    raw, out = native(a="ok", b="ok"), tmp_path / "out"
    run("fakeset", raw, out)
    before = {path.name: path.stat().st_ino for path in out.glob("*.h5")}
    text = (out / "report.json").read_bytes()
    report = run("fakeset", raw, out)
    assert report.converted == () and report.already_there == ("a", "b")
    assert {path.name: path.stat().st_ino for path in out.glob("*.h5")} == before
    assert (out / "report.json").read_bytes() == text


@pytest.mark.parametrize("change", ["params", "version", "content", "damage", "force", "other scene's file"])
def test_what_no_longer_matches_is_converted_again(plugin, native, tmp_path, monkeypatch, change):
    raw, out = native(a="ok", b="ok"), tmp_path / "out"
    run("fakeset", raw, out)
    options: dict[str, object] = {}
    expected = ("a",)
    if change == "params":
        options, expected = {"params": {"num_frames": "2"}}, ("a", "b")
    elif change == "version":
        monkeypatch.setattr(sys.modules["fakeset"], "VERSION", "2")
        expected = ("a", "b")
    elif change == "content":
        (raw / "a.txt").write_text("ok  ")
    elif change == "damage":
        data = (out / "a.h5").read_bytes()
        (out / "a.h5").write_bytes(data[: len(data) // 2])
    elif change == "other scene's file":
        (out / "a.h5").write_bytes((out / "b.h5").read_bytes())
    else:
        options, expected = {"force": True}, ("a", "b")
    assert run("fakeset", raw, out, **options).converted == expected
    with open_scene(out / "a.h5") as scene:
        assert scene.id == "a"


def test_linked_read_only_outputs_are_replaced_not_written(plugin, native, tmp_path):
    # This is how DVC leaves outputs: hard links into its cache, read-only.
    raw, out = native(a="ok"), tmp_path / "out"
    run("fakeset", raw, out)
    os.link(out / "a.h5", tmp_path / "cached.h5")
    (out / "a.h5").chmod(0o444)
    before = (tmp_path / "cached.h5").read_bytes()
    run("fakeset", raw, out, params={"num_frames": 2})
    assert (tmp_path / "cached.h5").read_bytes() == before != (out / "a.h5").read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_are_named_and_leave_nothing_behind(plugin, native, tmp_path, workers):
    raw, out = native(a="typed", b="bug", c="ok"), tmp_path / "out"
    report = run("fakeset", raw, out, workers=workers, max_failures=5)
    assert report.exit_code == 1 and report.converted == ("c",)
    typed, bug = report.failed
    assert (typed.scene, typed.kind, typed.is_bug) == ("a", "FormatError", False)
    assert (typed.where, typed.expected, typed.found, typed.mend) == (
        "frame 1",
        "8 bytes",
        "3",
        "get it again",
    )
    assert (bug.scene, bug.kind, bug.is_bug) == ("b", "ZeroDivisionError", True)
    assert "raise ZeroDivisionError" in bug.trace
    assert sorted(contents(out)) == ["c.h5", "report.json"]
    text = str(report)
    assert "The file is cut" in text and "Traceback" in text
    stored = json.loads((out / "report.json").read_text())["scenes"]
    assert stored["a"]["error"]["what"] == "The file is cut" and stored["c"]["status"] == "there"


def test_the_run_stops_past_the_failure_budget(plugin, native, tmp_path):
    raw = native(a="ok", b="typed", c="ok", d="typed", e="ok")
    report = run("fakeset", raw, tmp_path / "out")
    assert [f.scene for f in report.failed] == ["b"] and report.not_started == ("c", "d", "e")
    assert "--max-failures" in str(report)
    report = run("fakeset", raw, tmp_path / "out", max_failures=1)
    assert report.already_there == ("a",) and report.converted == ("c",)
    assert [f.scene for f in report.failed] == ["b", "d"] and report.not_started == ("e",)


def test_a_repaired_scene_is_all_that_is_converted(plugin, native, tmp_path):
    raw = native(a="ok", b="typed")
    assert run("fakeset", raw, tmp_path / "out").exit_code == 1
    native(b="ok")
    report = run("fakeset", raw, tmp_path / "out")
    assert (report.converted, report.already_there, report.exit_code) == (("b",), ("a",), 0)


def test_a_dead_worker_is_reported_and_stops_the_run(plugin, native, tmp_path):
    raw = native(a="ok", b="die", **{f"c{number:02}": "ok" for number in range(20)})
    report = run("fakeset", raw, tmp_path / "out", workers=2, max_failures=99)
    assert "b" in {failure.scene for failure in report.failed}
    assert {failure.kind for failure in report.failed} == {"WorkerDied"}
    assert report.exit_code == 1 and not list((tmp_path / "out").glob("*.partial"))
    assert "c19" in report.not_started and "a worker died" in str(report)
    native(b="ok")
    assert run("fakeset", raw, tmp_path / "out", workers=2).exit_code == 0


def test_selection(plugin, native, tmp_path):
    raw = native(a="ok", bt="ok", c="ok", dt="ok")

    def chosen(**options: object) -> list[str]:
        return [ref.id for ref in run("fakeset", raw, tmp_path / "out", dry_run=True, **options).plan.refs]

    assert chosen() == ["a", "bt", "c", "dt"]
    assert chosen(scenes="[ab]*") == ["a", "bt"]
    assert chosen(split="test") == ["bt", "dt"]
    assert chosen(split="test", limit=1) == ["bt"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"scenes": "z*"}, "a, b"),
        ({"split": "val"}, "train"),
        ({"limit": 0}, "at least one"),
        ({"workers": 0}, "at least one"),
        ({"params": {"num_frame": 1}}, "did you mean 'num_frames'"),
        ({"params": {"num_frames": "many"}}, "many"),
    ],
)
def test_bad_requests_say_what_there_is(plugin, native, tmp_path, options, found):
    with pytest.raises(UsageError, match=found):
        run("fakeset", native(a="ok", b="ok"), tmp_path / "out", **options)


def test_lists_are_given_as_text(plugin, native, tmp_path):
    report = run("fakeset", native(a="ok"), tmp_path / "out", params={"names": "[x, y]"})
    assert report.plan.params["names"] == ["x", "y"]


def test_bad_folders(plugin, native, tmp_path):
    raw = native(a="ok")
    with pytest.raises(LayoutError, match="does not exist"):
        run("fakeset", tmp_path / "nowhere", tmp_path / "out")
    for inside in (raw, raw / "out"):
        with pytest.raises(UsageError, match="inside the native tree"):
            run("fakeset", raw, inside)
    with pytest.raises(UsageError, match="not a folder"):
        run("fakeset", raw, tmp_path / "raw" / ".." / "plugin" / "fakeset.py")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="No scene"):
        run("fakeset", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a b", "", "é"])
def test_ids_that_leave_the_folder_are_refused(plugin, native, tmp_path, monkeypatch, name):
    from dataclasses import replace

    from datakit.convert import load_converter

    module = load_converter("fakeset")
    scenes = module.scenes
    monkeypatch.setattr(module, "scenes", lambda *args: (replace(ref, id=name) for ref in scenes(*args)))
    with pytest.raises(ConventionError, match="file name"):
        run("fakeset", native(a="ok"), tmp_path / "out")


def test_two_scenes_of_one_id_are_refused(plugin, native, tmp_path, monkeypatch):
    from datakit.convert import load_converter

    module = load_converter("fakeset")
    scenes = module.scenes
    monkeypatch.setattr(module, "scenes", lambda *args: [*scenes(*args), *scenes(*args)])
    with pytest.raises(ConventionError, match="same id"):
        run("fakeset", native(a="ok"), tmp_path / "out")


def test_scenes_gone_from_the_tree_are_named_and_pruned_on_request(plugin, native, tmp_path):
    raw, out = native(a="ok", b="ok"), tmp_path / "out"
    run("fakeset", raw, out)
    (raw / "a.txt").unlink()
    report = run("fakeset", raw, out)
    assert report.plan.left_over == ("a.h5",) and "a.h5" in str(report) and (out / "a.h5").exists()
    # With a selection nothing can be said about the others, so nothing is removed.
    assert run("fakeset", raw, out, scenes="b", prune=True).removed == ()
    assert run("fakeset", raw, out, prune=True).removed == ("a.h5",)
    assert sorted(contents(out)) == ["b.h5", "report.json"]


def test_a_killed_run_s_leavings_are_cleaned(plugin, native, tmp_path):
    raw, out = native(a="ok"), tmp_path / "out"
    run("fakeset", raw, out)
    for name in ("a.h5.partial", "gone.h5.partial", "report.json.partial"):
        (out / name).write_bytes(b"half")
    assert run("fakeset", raw, out).already_there == ("a",)
    assert sorted(contents(out)) == ["a.h5", "report.json"]


def test_two_runs_cannot_share_a_folder(plugin, native, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import sys; from pathlib import Path; from datakit.convert.lock import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid}"):
            run("fakeset", native(a="ok"), out)
        assert [path.name for path in out.iterdir()] == [LOCK_NAME]
    finally:
        holder.kill()
        holder.communicate()
    # The lock went with its holder although the file is still there.
    assert run("fakeset", native(a="ok"), out).exit_code == 0
    assert not (out / LOCK_NAME).exists()


def test_the_lock_is_released_when_the_run_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path):
        raise ZeroDivisionError
    with locked_folder(tmp_path):
        pass


def test_workers_give_the_same_bytes(plugin, native, tmp_path):
    raw = native(a="ok", b="ok", c="ok")
    run("fakeset", raw, tmp_path / "one", workers=1)
    run("fakeset", raw, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_ray_says_how_to_install_it(plugin, native, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"datakit\[ray\]"):
        run("fakeset", native(a="ok"), tmp_path / "out", ray="local")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "ray://[::1]:{}"])
def test_a_cluster_that_does_not_answer_is_an_error_at_once(plugin, native, tmp_path, form):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = form.format(taken.getsockname()[1])
        with pytest.raises(UsageError, match="cannot be reached") as error:
            run("fakeset", native(a="ok"), tmp_path / "out", ray=address)
    assert address in str(error.value)


@pytest.mark.slow
def test_ray_gives_the_same_bytes(plugin, native, tmp_path):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    raw = native(a="ok", b="typed", c="bug", d="ok")
    here = run("fakeset", raw, tmp_path / "here", max_failures=4)
    there = run("fakeset", raw, tmp_path / "there", ray="local", workers=2, max_failures=4)
    assert there.converted == here.converted == ("a", "d")
    assert [f.kind for f in there.failed] == ["FormatError", "ZeroDivisionError"]
    assert contents(tmp_path / "here")["a.h5"] == contents(tmp_path / "there")["a.h5"]
