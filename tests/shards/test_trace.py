from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from datakit.cli import pack as cli_pack
from datakit.cli import trace as cli_trace
from datakit.cli import verify as cli_verify
from datakit.errors import ShardError, UsageError
from datakit.shards import ShardSet, open_set, trace
from datakit.shards.layout import canonical_json
from datakit.shards.manifest import manifest_bytes

KEY = "tiny-square-cam-000002"


def test_chain_reaches_the_source_files(packed: Path, shard_set: ShardSet, scenes: list[Path]) -> None:
    chain = trace(packed, KEY)
    assert chain["manifest_sha256"] == shard_set.manifest_sha256
    shard = (packed / chain["shard"]["name"]).read_bytes()
    assert chain["shard"]["sha256"] == hashlib.sha256(shard).hexdigest()
    at = chain["members"]["clip.json"]
    assert json.loads(shard[at["offset"] : at["offset"] + at["length"]])["key"] == KEY
    assert chain["clip"] == {
        "view": "cam",
        "frames": [2, 3, 4, 5],
        "frame_names": ["00002", "00003", "00004", "00005"],
    }
    assert chain["scene"]["sha256"] == hashlib.sha256(scenes[0].read_bytes()).hexdigest()
    certificate = scenes[0].with_name("square.certificate.json").read_bytes()
    assert chain["certificate"]["sha256"] == hashlib.sha256(certificate).hexdigest()
    assert chain["certificate"]["content"] == json.loads(certificate)
    assert chain["conversion"]["converter"] == "tiny"
    assert chain["sources"] == [{"path": "made/up", "size": 1, "sha256": "0" * 64, "offset": 0}]
    json.dumps(chain)


def test_unknown_key_suggests_one(packed: Path) -> None:
    with pytest.raises(UsageError, match="tiny-square-cam-000002"):
        trace(packed, "tiny-square-cam-00002")


def test_broken_chain_is_found(packed: Path, tmp_path: Path) -> None:
    """Another source list, with all file hashes brought in line with it."""
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    lines = [json.loads(line) for line in (copy / "scenes.jsonl").read_bytes().splitlines()]
    lines[0]["provenance"]["sources"][0]["sha256"] = "1" * 64
    data = b"".join(canonical_json(line) + b"\n" for line in lines)
    (copy / "scenes.jsonl").write_bytes(data)
    manifest = open_set(packed).manifest
    content = {k: v for k, v in manifest.items() if k not in ("format", "version", "manifest_sha256")}
    content["scenes"] = content["scenes"] | {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (copy / "manifest.json").write_bytes(manifest_bytes(content))
    with pytest.raises(ShardError, match="sources_sha256"):
        trace(copy, KEY)


def test_verbs(scenes: list[Path], tmp_path: Path) -> None:
    runner = CliRunner()
    out = str(tmp_path / "set")
    arguments = [*map(str, scenes), out, "--clip-frames", "4", "--workers", "1", "--shard-mb", "0.1"]
    result = runner.invoke(cli_pack.command, arguments, standalone_mode=False)
    assert result.return_value == 0, result.output
    assert "4 clip(s), 16 frames of 2 scene(s)" in result.output
    assert open_set(out).manifest["params"]["shard_bytes"] == 100_000
    good = runner.invoke(cli_verify.command, [out], standalone_mode=False)
    assert (good.return_value, good.output) == (0, f"{out}: ok\n")
    shown = runner.invoke(cli_trace.command, [out, KEY], standalone_mode=False)
    assert "0" * 64 in shown.output
    assert "tiny/square" in shown.output
    as_json = runner.invoke(cli_trace.command, [out, KEY, "--json"], standalone_mode=False)
    assert json.loads(as_json.output) == trace(out, KEY)
    (tmp_path / "set" / "shard-000000.tar").unlink()
    bad = runner.invoke(cli_verify.command, [out, "--quick"], standalone_mode=False)
    assert bad.return_value == 1
    assert "shard-000000.tar" in bad.output
