"""The manifest: what a set is made of, in one file whose hash stands for all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from datakit.errors import ShardError

from .layout import FORMAT, FORMAT_VERSION, sha256_json

_SELF = "manifest_sha256"


def manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """Write a manifest's content (without its own hash) as the bytes of `manifest.json`."""
    full = {"format": FORMAT, "version": FORMAT_VERSION, **content}
    full[_SELF] = sha256_json(full)
    return _text(full)


def _text(full: Mapping[str, Any]) -> bytes:
    return (json.dumps(full, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """Read `manifest.json`, refusing anything but the very bytes that `pack` writes.

    Raises:
        ShardError: Not a manifest, of another version, or altered.
    """
    try:
        manifest = json.loads(data)
        is_ours = manifest["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(
            "Manifest cannot be read", where=where, expected=f"JSON of {FORMAT}", found=error
        ) from error
    if not is_ours or manifest.get("version") != FORMAT_VERSION:
        found = (manifest["format"], manifest.get("version"))
        raise ShardError(
            "Manifest of another format", where=where, expected=(FORMAT, FORMAT_VERSION), found=found
        )
    content = {name: value for name, value in manifest.items() if name != _SELF}
    digest = sha256_json(content)
    if manifest.get(_SELF) != digest or _text(manifest) != data:
        raise ShardError(
            "Manifest was altered",
            where=where,
            expected=f"{_SELF} {manifest.get(_SELF)}",
            found=digest,
            mend="fetch it again, or pack again",
        )
    return dict(manifest)
