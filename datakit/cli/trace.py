"""datakit trace."""

from __future__ import annotations

import json
from typing import Any

import click

from .common import verb

_MOST_SOURCES = 20


@verb("""
datakit trace SHARDS kubric-7-camera-000000
datakit trace SHARDS kubric-7-camera-000000 --json | jq .sources
""")
@click.argument("set_", metavar="SET")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
def command(set_: str, key: str, as_json: bool) -> int:
    """Follow sample KEY of a shard SET (folder or URL) back to the source files that it was made from."""
    from datakit.shards import trace

    chain = trace(set_, key)
    click.echo(json.dumps(chain, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(chain)))
    return 0


def _lines(chain: dict[str, Any]) -> list[str]:
    scene, clip, shard = chain["scene"], chain["clip"], chain["shard"]
    conversion, certificate, sources = chain["conversion"], chain["certificate"], chain["sources"]
    lines = [
        f"set          manifest {chain['manifest_sha256']}",
        f"shard        {shard['name']}  sha256 {shard['sha256']}",
        *(
            f"  member     {kind}  bytes {at['offset']}..{at['offset'] + at['length']}  xxh3 {at['xxh3']}"
            for kind, at in chain["members"].items()
        ),
        f"clip         view {clip['view']}, frames {clip['frames'][0]}..{clip['frames'][-1]} "
        f"({clip['frame_names'][0]} .. {clip['frame_names'][-1]})",
        f"scene        {scene['dataset']}/{scene['id']}  sha256 {scene['sha256']}",
        f"             {scene['licence']}, scale {scene['scale']}, split {scene['split']}",
        f"certificate  {certificate['level']}  sha256 {certificate['sha256']}",
        f"converter    {conversion['converter']} {conversion['converter_version']}",
        f"sources      {len(sources)} file(s)",
    ]
    lines += [f"  sha256 {s['sha256']}  {s['size']:>12}  {s['path']}" for s in sources[:_MOST_SOURCES]]
    if len(sources) > _MOST_SOURCES:
        lines.append(f"  ... and {len(sources) - _MOST_SOURCES} more (--json lists all)")
    return lines
