"""A third party's converter, as small as one can be. Its native tree is one `<id>.txt` per scene.

The text is how converting it goes: "ok", "typed" (bad input), "bug" (an exception nobody foresaw), "die" (the
process goes without a word), or "slow" (stays in the middle until a file named `go` stands in the root).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from datakit.convert.api import DatasetCard, Probe, SceneRef
from datakit.errors import FormatError, LayoutError
from datakit.scene import SceneStream
from tests.tiny import tiny_stream

CARD = DatasetCard(
    "fakeset", "A fake", "https://example.org", "CC0-1.0", "Nothing.", "none", "metric", ("rgb",), ("none",)
)
VERSION = "1"
NATIVE_FORMS = ("text",)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Params:
    num_frames: int = 3
    names: tuple[str, ...] = ()


def probe(root: Path) -> Probe:
    return Probe("fakeset", "text", {"none": len(list(root.glob("*.txt")))}, 0, ("rgb",))


def scenes(root: Path, params: Any) -> Iterator[SceneRef]:
    if not root.is_dir():
        raise LayoutError("Not a fake tree", where=root)
    for path in sorted(root.glob("*.txt")):
        # Without the name: scenes of one record file share its fingerprint too.
        digest = hashlib.sha256(str(path.stat().st_size).encode()).hexdigest()
        split = "test" if path.stem.endswith("t") else "train"
        yield SceneRef(path.stem, split, {"file": path.name}, digest, params.num_frames, path.stat().st_size)


def read(root: Path, ref: SceneRef, params: Any) -> SceneStream:
    mode = (root / ref.location["file"]).read_text().strip()
    stream = tiny_stream(num_frames=params.num_frames)
    stream.frames = _frames(stream.frames, mode, root)
    return stream


def _frames(frames: Iterator[Any], mode: str, root: Path) -> Iterator[Any]:
    yield next(frames)
    if mode == "typed":
        raise FormatError(
            "The file is cut", where="frame 1", expected="8 bytes", found="3", mend="get it again"
        )
    if mode == "bug":
        raise ZeroDivisionError("nobody foresaw this")
    if mode == "die":
        os._exit(9)
    while mode == "slow" and not (root / "go").exists():
        time.sleep(0.02)
    yield from frames


def write_native(worlds: Iterator[Any], out: Path, form: str) -> None:
    for number, _ in enumerate(worlds):
        (out / f"s{number}.txt").write_text("ok")
