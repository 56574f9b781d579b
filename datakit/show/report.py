"""Write the report: one HTML file with everything inside, that opens offline in any browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from datakit.errors import UsageError
from datakit.scene import open_scene

from .payload import build_payload

#: Read in this order and joined: later files use the earlier ones' names.
_SCRIPTS = ("base.js", "player.js", "space.js", "certificate.js", "report.js")
DEFAULT_MAX_FRAMES = 48
DEFAULT_MAX_BYTES = 7_000_000


def write_report(
    scene_path: str | Path,
    out_html: str | Path,
    certificate: Mapping[str, Any] | None = None,
    *,
    max_frames: int = DEFAULT_MAX_FRAMES,
    max_bytes: int = DEFAULT_MAX_BYTES,
    seed: int = 0,
) -> Path:
    """Write a self-contained report of a scene; the same scene and seed give the same bytes.

    Args:
        scene_path: A scene file.
        out_html: The file to write; replaced only when the new one is complete.
        certificate: The scene's certificate as loaded from JSON, or None.
        max_frames: Most frames shown per view; evenly chosen, with the first and the last.
        max_bytes: What all images together may take in the page. Panels are made smaller, down to 64 px, to fit.
        seed: Of the pixels whose tracks and points are shown.

    Returns:
        Path of the written file.

    Raises:
        UsageError: A bad number of frames or bytes, or `out_html` is a directory.
        FormatError: The scene cannot be read.
        ConventionError: The scene has another version of the contract.
    """
    out = Path(out_html)
    for name, value in (("max_frames", max_frames), ("max_bytes", max_bytes)):
        if value < 1:
            raise UsageError("The report needs room for a frame", where=name, expected=">= 1", found=value)
    if out.is_dir():
        raise UsageError(
            "Report path is a directory", where=out, expected="a file name", mend=f"use {out / 'report.html'}"
        )
    with open_scene(scene_path) as scene:
        payload = build_payload(scene, certificate, max_frames, max_bytes, seed)
        title = f"{scene.dataset} / {scene.id}"
    _write_atomically(out, render_page(payload, title))
    return out


def render_page(payload: Mapping[str, Any], title: str) -> str:
    """Put the payload, the styles and the scripts into the page.

    Everything from files reaches the page as JSON and is shown as text. The page's policy names the hashes of its
    own style and script, so that the browser runs nothing else and loads nothing from anywhere.

    Args:
        payload: What `build_payload` gives.
        title: Of the page; any text.
    """
    style = _page_file("report.css")
    script = "\n".join(_page_file(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "payload": embed_json(payload),
    }
    # One pass, so that no text of a part is taken for a place-holder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _page_file("report.html"))


def embed_json(value: Any) -> str:
    r"""Write JSON that may stand inside a script element whatever strings it holds; NaN becomes null.

    >>> embed_json({"a": "</script><!--", "b": float("nan")})
    '{"a":"\\u003c/script>\\u003c!--","b":null}'
    """
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _page_file(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
