"""Read what is inferred from: a video file, a folder of images, or a view of a scene; frames are streamed.

A first pass looks at every frame's time without keeping a picture. Only what it decodes counts: the number of frames in
a container's header is often an estimate from length and rate, and it is never believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError, FormatError, LayoutError, UsageError
from datakit.scene import SourceFile, View, check_image, open_scene

Rgb = NDArray[np.uint8]
#: (codec, bytes) of a frame whose source image can be stored as it is.
Encoded = tuple[str, bytes]

IMAGE_CODECS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
#: A frame may come this share of a period early and still count for its tick; clocks are rounded to milliseconds.
_TICK_SLACK = 0.05


@dataclass(frozen=True)
class Selection:
    """Which frames of a source are used.

    Attributes:
        stride: Every so many frames; 1 for all.
        fps: At most so many frames a second: the first at or after each tick. None for all; not with a stride.
        start_s: Nothing before this, seconds from the first frame; None for the first frame.
        end_s: Nothing at or after this, seconds from the first frame; None for the last frame.
        max_frames: At most so many, after all other choices; None for no limit.
    """

    stride: int = 1
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if self.stride != 1 and self.fps is not None:
            raise UsageError("Frames are thinned either by stride or by rate", found="both")
        for name, bad in (
            ("stride", self.stride < 1),
            ("fps", self.fps is not None and not self.fps > 0),
            ("max_frames", self.max_frames is not None and self.max_frames < 1),
        ):
            if bad:
                raise UsageError("Must be positive", where=name, found=getattr(self, name))

    def choose(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the frames to use, increasing.

        Args:
            times_s: (T,) increasing, of all frames of the source.

        >>> Selection(fps=10).choose(np.array([0, 0.03, 0.07, 0.1, 0.5, 0.51])).tolist()
        [0, 3, 4]
        """
        since = times_s - times_s[0] if len(times_s) else times_s
        inside = np.ones(len(times_s), bool)
        if self.start_s is not None:
            inside &= since >= self.start_s
        if self.end_s is not None:
            inside &= since < self.end_s
        chosen = np.flatnonzero(inside)[:: self.stride]
        if self.fps is not None and len(chosen):
            ticks = np.floor((since[chosen] - since[chosen[0]]) * self.fps + _TICK_SLACK).astype(np.int64)
            chosen = chosen[np.concatenate([[True], ticks[1:] > ticks[:-1]])]
        return chosen[: self.max_frames]


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source after the first pass; T frames are used.

    Attributes:
        kind: "video", "images" or "scene".
        path: As given.
        size: (W, H) as shown, rotation applied.
        numbers: (T,) int64, number of each used frame in the source.
        times_s: (T,) float64, increasing, the source's own clock.
        names: T names of the frames.
        num_all: Frames the source has.
        clock: Where the times come from, for people.
        rotation_deg: Clockwise rotation that the container asked for and that was applied.
        files: Source files with their hashes.
        licence: Of the source; "NOASSERTION" where nobody said.
        notes: Oddities to tell the user.
    """

    kind: str
    path: Path
    size: tuple[int, int]
    numbers: NDArray[np.int64]
    times_s: NDArray[np.float64]
    names: tuple[str, ...]
    num_all: int
    clock: str
    files: tuple[SourceFile, ...]
    rotation_deg: int = 0
    licence: str = "NOASSERTION"
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.numbers)

    def fingerprint(self) -> str:
        """Return a sha256 over names, sizes and hashes of the source files."""
        lines = [f"{file.path}\0{file.size}\0{file.sha256}" for file in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return what makes the frames what they are, as plain data."""
        used = hashlib.sha256(self.numbers.tobytes() + self.times_s.tobytes()).hexdigest()
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint(),
            "size": list(self.size),
            "num_frames": self.num_frames,
            "frames": used,
        }


class FrameSource(Protocol):
    """A source of frames."""

    info: SourceInfo

    def frames(self, first: int = 0, stop: int | None = None) -> Iterator[Rgb]:
        """Yield (H, W, 3) uint8 RGB of used frames first..stop-1, in order; each pass gives the same."""

    def encoded(self) -> Iterator[Encoded] | None:
        """Yield the stored image of every used frame where it can be kept byte for byte; None where it cannot."""


def open_source(
    path: str | Path,
    selection: Selection | None = None,
    *,
    view: str | None = None,
    image_rate: float = 24.0,
) -> FrameSource:
    """Open a video file, a folder of images, or a scene file, and look at all its frames' times.

    Args:
        path: What to read.
        selection: Which frames; None for all.
        view: View of a scene; None for its only one.
        image_rate: Images a second of a folder, which has no clock.

    Raises:
        LayoutError: Nothing is there, or a folder holds no image.
        FormatError: The file is no video that can be read, is damaged, or images differ in size.
        UsageError: No frame is left by the selection, or an option does not fit the source.
    """
    path, selection = Path(path), selection or Selection()
    if not path.exists():
        raise LayoutError("No such file or folder", where=path, expected="a video, images, or a scene")
    if not image_rate > 0:
        raise UsageError("The rate of images must be positive", found=image_rate)
    is_scene = path.is_file() and _starts_with(path, 8) == _HDF5_MAGIC
    if view is not None and not is_scene:
        raise UsageError("Only a scene has views", where=path, found=f"view {view}")
    if path.is_dir():
        return _ImageFolder(path, selection, image_rate)
    return _SceneView(path, selection, view) if is_scene else _VideoFile(path, selection)


def _starts_with(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _hash_file(path: Path, name: str) -> SourceFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(name, path.stat().st_size, digest)


def _choose(path: Path, times_s: NDArray[np.float64], selection: Selection) -> NDArray[np.int64]:
    chosen = selection.choose(times_s)
    if not len(chosen):
        length = times_s[-1] - times_s[0] if len(times_s) else 0.0
        raise UsageError(
            "No frame is left to look at",
            where=path,
            expected=f"start and end within the source's {length:.3f} s",
            found=f"start {selection.start_s}, end {selection.end_s}",
        )
    return chosen


# --- a video file --------------------------------------------------------------------------------------------------


class _VideoFile:
    """A video through OpenCV's ffmpeg, which also turns the pictures as the container asks."""

    def __init__(self, path: Path, selection: Selection) -> None:
        self._path = path
        times_ms, size, rate, claimed, rotation = self._scan()
        times_s, clock, notes = _clock(times_ms, rate)
        # A count may be an estimate by length and rate, so that only a large gap is worth a word.
        if claimed > 0 and len(times_s) < 0.98 * claimed - 1:
            notes.append(f"the container says {claimed} frames, but only {len(times_s)} can be decoded")
        chosen = _choose(path, times_s, selection)
        self.info = SourceInfo(
            kind="video",
            path=path,
            size=size,
            numbers=chosen,
            times_s=times_s[chosen],
            names=tuple(f"{number:06d}" for number in chosen),
            num_all=len(times_s),
            clock=clock,
            files=(_hash_file(path, path.name),),
            rotation_deg=rotation,
            notes=tuple(notes),
        )

    def frames(self, first: int = 0, stop: int | None = None) -> Iterator[Rgb]:
        wanted = self.info.numbers[first:stop].tolist()
        capture = self._open()
        try:
            # Seeking is exact for some codecs only; decoding and dropping always is.
            number = -1
            for target in wanted:
                while number < target:
                    if not capture.grab():
                        raise FormatError(
                            "The video ends earlier than when it was read before",
                            where=f"{self._path}, frame {number + 1}",
                            expected=f"{self.info.num_all} frames",
                        )
                    number += 1
                yield self._picture(capture, number)
        finally:
            capture.release()

    def encoded(self) -> Iterator[Encoded] | None:
        return None

    def _picture(self, capture: cv2.VideoCapture, number: int) -> Rgb:
        ok, bgr = capture.retrieve()
        if not ok or bgr is None or bgr.ndim != 3 or bgr.dtype != np.uint8:
            raise FormatError("A frame cannot be decoded", where=f"{self._path}, frame {number}")
        found = (bgr.shape[1], bgr.shape[0])
        if found != self.info.size:
            raise FormatError(
                "Frames differ in size",
                where=f"{self._path}, frame {number}",
                expected=self.info.size,
                found=found,
                mend="scale the video to one size",
            )
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def _open(self) -> cv2.VideoCapture:
        start = _starts_with(self._path, 256)
        if not start:
            raise FormatError("The video is empty", where=self._path, found="0 bytes")
        # Playlists (.m3u8, ffconcat, .sdp) are texts that name other files or hosts; ffmpeg would follow them.
        if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
            raise FormatError(
                "A text file is not a video", where=self._path, expected="a video", found=start[:40]
            )
        capture = cv2.VideoCapture(str(self._path.resolve()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise FormatError(
                "The video cannot be opened",
                where=self._path,
                expected="a whole file in a format that ffmpeg reads",
                mend="if it was cut off in transfer, fetch it again; else re-encode it",
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        return capture

    def _scan(self) -> tuple[NDArray[np.float64], tuple[int, int], float, int, int]:
        """Return each decoded frame's time stamp in ms, the shown size, nominal rate, claimed count, rotation."""
        capture = self._open()
        try:
            times, size = [], (0, 0)
            while capture.grab():
                times.append(float(capture.get(cv2.CAP_PROP_POS_MSEC)))
                if len(times) == 1:
                    ok, bgr = capture.retrieve()
                    size = (bgr.shape[1], bgr.shape[0]) if ok and bgr is not None else (0, 0)
            if not times or 0 in size:
                raise FormatError(
                    "No frame of the video can be decoded",
                    where=self._path,
                    expected="at least one frame",
                    mend="re-encode it with a common codec such as h264",
                )
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            rotation = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
            count = int(claimed) if np.isfinite(claimed) and 0 < claimed < 1 << 53 else 0
            return np.array(times), size, rate, count, rotation
        finally:
            capture.release()


def _clock(times_ms: NDArray[np.float64], rate: float) -> tuple[NDArray[np.float64], str, list[str]]:
    """Make increasing seconds of a container's time stamps; of the nominal rate where these do not increase."""
    if np.isfinite(times_ms).all() and (np.diff(times_ms) > 0).all():
        return times_ms / 1000.0, "time stamps of the container", []
    if not (np.isfinite(rate) and 0 < rate <= 1000):
        rate = 30.0
        clock = "30 frames a second, assumed: the container has neither time stamps nor a rate"
    else:
        clock = f"the container's nominal {rate:g} frames a second"
    note = f"time stamps do not increase; the clock is {clock}"
    return np.arange(len(times_ms)) / rate, clock, [note]


# --- a folder of images --------------------------------------------------------------------------------------------


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts digits by their value.

    >>> sorted(["f10.png", "f9.png", "f010.png"], key=natural_key)
    ['f9.png', 'f010.png', 'f10.png']
    """
    parts = re.split(r"([0-9]+)", name)
    key: list[tuple[int, int | str]] = [
        (0, int(part)) if part.isdigit() else (1, part.casefold()) for part in parts if part
    ]
    return (*key, (1, name))  # names of equal value stay in one order


class _ImageFolder:
    """JPEG and PNG files of one size, in natural order."""

    def __init__(self, path: Path, selection: Selection, rate: float) -> None:
        names = sorted(
            (
                entry.name
                for entry in path.iterdir()
                if entry.suffix.lower() in IMAGE_CODECS and not entry.name.startswith(".") and entry.is_file()
            ),
            key=natural_key,
        )
        if not names:
            raise LayoutError("No image in this folder", where=path, expected="files named *.jpg or *.png")
        times_s = np.arange(len(names)) / rate
        chosen = _choose(path, times_s, selection)
        self._paths = [path / names[k] for k in chosen]
        looked = [_look_at_image(file) for file in self._paths]
        sizes = [size for size, _ in looked]
        other = next((k for k, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None:
            raise FormatError(
                "Images differ in size",
                where=self._paths[other],
                expected=f"{sizes[0]} as {self._paths[0].name}",
                found=sizes[other],
                mend="scale or crop them to one size",
            )
        codecs = {IMAGE_CODECS[file.suffix.lower()] for file in self._paths}
        self._is_kept = len(codecs) == 1 and all(plain for _, plain in looked)
        self.info = SourceInfo(
            kind="images",
            path=path,
            size=sizes[0],
            numbers=chosen,
            times_s=times_s[chosen],
            names=_unique_stems([file.name for file in self._paths]),
            num_all=len(names),
            clock=f"{rate:g} images a second, as asked for: a folder has no clock",
            files=tuple(_hash_file(file, file.name) for file in self._paths),
        )

    def frames(self, first: int = 0, stop: int | None = None) -> Iterator[Rgb]:
        for file in self._paths[first:stop]:
            # Palettes, greys, 16 bits and EXIF's orientation all become upright 8-bit colour here.
            bgr = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            if bgr is None or (bgr.shape[1], bgr.shape[0]) != self.info.size:
                raise FormatError(
                    "Image cannot be decoded",
                    where=file,
                    expected=self.info.size,
                    found=None if bgr is None else bgr.shape,
                )
            yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def encoded(self) -> Iterator[Encoded] | None:
        if not self._is_kept:
            return None
        return ((IMAGE_CODECS[file.suffix.lower()], file.read_bytes()) for file in self._paths)


def _unique_stems(names: list[str]) -> tuple[str, ...]:
    stems = [Path(name).stem for name in names]
    return tuple(stems if len(set(stems)) == len(stems) else names)


def _look_at_image(path: Path) -> tuple[tuple[int, int], bool]:
    """Check an image whole; return its shown size, and whether its bytes are plain upright 8-bit RGB."""
    import io

    from PIL import Image

    codec, data = IMAGE_CODECS[path.suffix.lower()], path.read_bytes()
    width, height = check_image(codec, data, str(path))
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = int(image.getexif().get(_EXIF_ORIENTATION, 1) or 1)
            plain = image.mode == "RGB"
    except Exception as error:  # Pillow raises many kinds on damaged headers
        raise FormatError("Image header cannot be read", where=path, found=error) from error
    is_plain = plain and turned == 1 and not (codec == "png" and data[24] != 8)
    return ((height, width) if turned in (5, 6, 7, 8) else (width, height)), is_plain


# --- a view of a scene ---------------------------------------------------------------------------------------------


class _SceneView:
    """A view of a scene file, so that its truth can be compared."""

    def __init__(self, path: Path, selection: Selection, view: str | None) -> None:
        self._scene = open_scene(path)
        self._view = self._find_view(path, view)
        if self._scene.time_kind != "sequence":
            raise ConventionError(
                "The scene's frames do not follow each other in time", where=path, found=self._scene.time_kind
            )
        if "rgb" not in self._view.layers:
            raise ConventionError("View has no colour layer", where=f"{path}, view {self._view.name}")
        times_s = self._view.times
        chosen = _choose(path, times_s, selection)
        self.info = SourceInfo(
            kind="scene",
            path=path,
            size=self._view.layer_size("rgb"),
            numbers=chosen,
            times_s=times_s[chosen],
            names=tuple(self._view.frame_names[k] for k in chosen),
            num_all=len(times_s),
            clock="times of the scene",
            files=(_hash_file(path, path.name),),
            licence=self._scene.licence,
        )

    def _find_view(self, path: Path, name: str | None) -> View:
        views = self._scene.views
        if name is None and len(views) == 1:
            return next(iter(views.values()))
        if name is None or name not in views:
            raise UsageError(
                "Which view of the scene?" if name is None else "No such view",
                where=path,
                expected=", ".join(views),
                found=name,
            )
        return views[name]

    def frames(self, first: int = 0, stop: int | None = None) -> Iterator[Rgb]:
        for number in self.info.numbers[first:stop]:
            yield self._view.rgb(int(number))

    def encoded(self) -> Iterator[Encoded] | None:
        layer = self._view.record["layers"]["rgb"]
        is_plain = layer["num_channels"] == 3 and not layer["channels"] and not layer["value_scale"]
        if layer["codec"] == "array" or not is_plain:
            return None
        return ((layer["codec"], self._view.encoded("rgb", int(number))) for number in self.info.numbers)
