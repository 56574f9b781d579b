"""Reading one sequence: its annotations first, then frame by frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.blendedmvs.photos import check_photo
from converters.blendedmvs.scene import static_motion
from converters.native.files import has_file, inside, read_source
from converters.native.halves import NO_NUMBER, z_of_code, z_of_frames
from datakit.convert.api import SceneRef
from datakit.errors import ConventionError, FormatError, LayoutError, QualityError
from datakit.scene import decode_image
from datakit.scene.records import (
    Frame,
    LayerRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    SourceFile,
    ViewRecord,
)

from .annotations import FrameNote, parse_frame
from .camera import intrinsics_of, pose_of
from .card import CITATION, LICENCE, NAME, SOURCE_CONVENTIONS, VERSION, VIEW
from .discover import FRAMES
from .images import can_be_blank, check_mask, depth_codes, empty_mask, is_black, mask_bits
from .jgz import span_items
from .params import Params
from .setlists import Membership, frames_of, read_lists

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """Where one sequence is: the dataset's root, the folder that paths are relative to, the category, the name."""

    root: Path
    base: Path
    category: Path
    sequence: str

    def where(self, path: str) -> str:
        """Name a file of the sequence, for errors."""
        return str(self.root / self.base / path)

    def data(self, path: str, sources: list[SourceFile]) -> bytes:
        """Read a file that an annotation names."""
        return read_source(self.root, self.base / path, sources)

    def has(self, path: str | None) -> bool:
        """Tell whether a file that an annotation names is there."""
        return path is not None and has_file(self.root, self.base / path)


def read(root: Path, ref: SceneRef, params: Params) -> SceneStream:
    """Open a sequence; see `Converter.read`.

    Raises:
        LayoutError: A file is missing or leaves the root.
        FormatError: A file is truncated or malformed.
        ConventionError: Values break the conventions.
        QualityError: All frames are blanked, or none has a camera.
    """
    category = Path(ref.location["category"])
    source = Source(root, category.parent, category, ref.location["sequence"])
    sources = [_whole_file(root, category / FRAMES)]
    membership = read_lists(root / category).get(source.sequence, {})
    notes = frame_notes(source, ref.location["spans"], membership, params)
    blank = [is_redacted(source, note) for note in notes]
    redacted = [note for note, is_blank in zip(notes, blank, strict=True) if is_blank]
    kept = [note for note, is_blank in zip(notes, blank, strict=True) if not is_blank]
    if not kept:
        raise QualityError(
            "No frame is left.",
            where=root / category / source.sequence,
            expected="frames that are not blanked",
            found=f"{len(redacted)} blanked frames",
            mend="Leave this subset out: --param subset=...",
        )
    layers, left_out = _layers(source, kept, params)
    cameras = _cameras(source, kept, params)
    times, how = _times(kept)
    metadata = {
        **_about(ref, kept, membership, params),
        "times": how,
        "redacted_frames": [Path(note.image).stem for note in redacted],
        "frames_without_depth": [Path(note.image).stem for note in kept if note.depth is None],
        "layers_left_out": left_out,
        "poses_unknown": cameras.reasons,
        "intrinsics_of_a_neighbour": cameras.filled,
    }
    record = _record(ref, params, kept, cameras, layers, times, how, metadata)
    return SceneStream(record, _frames(source, kept, layers, params, sources), sources)


def _whole_file(root: Path, relative: Path) -> SourceFile:
    path = inside(root, relative)
    try:
        stat = path.stat()
        digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    except OSError as err:
        raise LayoutError("A file cannot be read.", where=path, found=err.strerror or err) from err
    return SourceFile(relative.as_posix(), stat.st_size, digest)


@lru_cache(maxsize=4)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a category's annotations once a process, not once a sequence."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def frame_notes(
    source: Source, spans: Sequence[Sequence[int]], membership: Membership, params: Params
) -> list[FrameNote]:
    """Read the annotations of a sequence's frames, in order of frame_number.

    Raises:
        FormatError: Damaged, of another sequence, or a frame number twice.
        ConventionError: Images of several sizes, as in version 1.
    """
    path = inside(source.root, source.category / FRAMES)
    wanted = None if params.subset == "all" else frames_of(membership, params.subset)
    notes = [parse_frame(item.value, str(path)) for item in span_items(path, [(a, b) for a, b in spans])]
    notes = sorted(
        (note for note in notes if wanted is None or note.number in wanted), key=lambda note: note.number
    )
    for before, note in zip(notes, notes[1:], strict=False):
        if note.number == before.number:
            raise FormatError("A frame is annotated twice.", where=path, found=(source.sequence, note.number))
    for note in notes:
        if note.sequence != source.sequence:
            raise FormatError(
                "The annotations have changed.", where=path, expected=source.sequence, found=note.sequence
            )
        if note.size != notes[0].size:
            raise ConventionError(
                "The images of a sequence differ in size, as in CO3D version 1.",
                where=f"{path}: {source.sequence}, frame_number {note.number}",
                expected=f"{notes[0].size} (W, H)",
                found=note.size,
            )
    return notes


def is_redacted(source: Source, note: FrameNote) -> bool:
    """Tell whether a frame was blanked for the challenge: a black image without any depth (co3d issue 70).

    Only images whose files are too small for a photo are decoded for it.
    """
    path = inside(source.root, source.base / note.image)
    if not has_file(source.root, source.base / note.image):
        raise LayoutError(
            "A photo is missing.",
            where=path,
            expected="a file",
            found="none",
            mend="Download the archive that holds it.",
        )
    if not can_be_blank(path.stat().st_size, note.size):
        return False
    data = source.data(note.image, [])
    check_photo(data, note.size, str(path))
    if not is_black(data, str(path)):
        return False
    if note.depth is None or not source.has(note.depth):
        return True
    codes = depth_codes(source.data(note.depth, []), note.size, source.where(note.depth))
    return bool(np.isnan(z_of_code(note.depth_scale)[codes]).all())


def _layers(
    source: Source, notes: Sequence[FrameNote], params: Params
) -> tuple[dict[str, LayerRecord], dict[str, str]]:
    """Decide on the layers: foreground where every frame has one, depth masks where every frame with depth has."""
    size = notes[0].size
    values, row = z_of_frames([note.depth_scale for note in notes], source.where(source.sequence))
    layers = {
        "rgb": LayerRecord(size, "jpeg", "uint8", num_channels=3),
        "z_depth": LayerRecord(
            size, "array", "uint16", depth_kind="mvs", code_values=values, code_values_row=row
        ),
    }
    left_out = {}
    for name, paths in (
        ("foreground", [note.mask for note in notes]),
        ("depth_confidence", [note.depth_mask for note in notes if note.depth is not None]),
    ):
        missing = sum(not source.has(path) for path in paths)
        if missing or not paths:
            left_out[name] = f"{missing} of {len(paths)} frames have none"
            continue
        # 8 bits are a probability; 1 bit decodes to 0 and 1 already.
        bits = _bits(source, str(paths[0]))
        scale = ((1 / 255,), (0.0,)) if bits == 8 else ((), ())
        layers[name] = LayerRecord(size, "png", "uint8", value_scale=scale[0], value_offset=scale[1])
    if params.depth_mask == "apply" and "depth_confidence" in left_out:
        raise LayoutError(
            "depth_mask=apply needs the mask of every frame.",
            where=source.root / source.category / source.sequence / "depth_masks",
            expected=f"{len(notes)} masks",
            found=left_out["depth_confidence"],
            mend="--param depth_mask=keep",
        )
    return layers, left_out


def _bits(source: Source, path: str) -> int:
    with open(inside(source.root, source.base / path), "rb") as file:
        return mask_bits(file.read(25))


@dataclass(frozen=True)
class Cameras:
    """Cameras of the kept frames: K (T, 3, 3), world_from_cam (T, 4, 4) with NaN, and what was wrong where."""

    intrinsics: Float
    world_from_cam: Float
    reasons: dict[str, str]
    filled: list[str]


def _cameras(source: Source, notes: Sequence[FrameNote], params: Params) -> Cameras:
    matrices = [None if n.viewpoint is None else intrinsics_of(n.viewpoint, n.size) for n in notes]
    known = np.flatnonzero([k is not None for k in matrices])
    if not known.size:
        raise QualityError(
            "No frame of the sequence has a camera.",
            where=source.root / source.category / source.sequence,
            expected="viewpoint in its frame annotations",
            found=f"{len(notes)} frames without",
        )
    poses, reasons, filled = np.full((len(notes), 4, 4), np.nan), {}, []
    for t, note in enumerate(notes):
        name = Path(note.image).stem
        if note.viewpoint is None or matrices[t] is None:
            reasons[name] = "no viewpoint" if note.viewpoint is None else "focal length or centre unusable"
            filled.append(name)
            continue
        pose, why = pose_of(note.viewpoint, params)
        if pose is None:
            reasons[name] = why
        else:
            poses[t] = pose
    nearest = [matrices[int(known[np.argmin(np.abs(known - t))])] for t in range(len(notes))]
    return Cameras(np.array(nearest, dtype=np.float64), poses, reasons, filled)


def _times(notes: Sequence[FrameNote]) -> tuple[Float, str]:
    stamps = np.array([note.timestamp for note in notes])
    if np.isfinite(stamps).all() and (np.diff(stamps) > 0).all():
        return stamps, "frame_timestamp"
    return np.arange(len(notes), dtype=np.float64), "numbers: frame_timestamp does not increase"


def _about(
    ref: SceneRef, notes: Sequence[FrameNote], membership: Membership, params: Params
) -> dict[str, Any]:
    """Collect what the source says beyond geometry; frames are given by their index in the scene."""
    at = {note.number: t for t, note in enumerate(notes)}
    kinds = sorted({note.frame_type for note in notes})
    formats = sorted({note.viewpoint.format for note in notes if note.viewpoint is not None})
    return {
        "category": Path(ref.location["category"]).name,
        "annotation": ref.location["note"],
        "frame_numbers": [note.number for note in notes],
        "frame_types": {kind: [t for t, n in enumerate(notes) if n.frame_type == kind] for kind in kinds},
        "intrinsics_formats": formats,
        "set_lists": {
            subset: {part: [at[n] for n in numbers if n in at] for part, numbers in parts.items()}
            for subset, parts in membership.items()
        },
    }


def _record(
    ref: SceneRef,
    params: Params,
    notes: Sequence[FrameNote],
    cameras: Cameras,
    layers: dict[str, LayerRecord],
    times: Float,
    how: str,
    metadata: dict[str, Any],
) -> SceneRecord:
    view = ViewRecord(
        size=notes[0].size,
        times=times,
        frame_names=tuple(Path(note.image).stem for note in notes),
        intrinsics=cameras.intrinsics,
        world_from_cam=cameras.world_from_cam,
        pose_is_known=np.asarray(np.isfinite(cameras.world_from_cam).all(axis=(1, 2))),
        motion_index=np.arange(len(notes), dtype=np.int64),
        layers=layers,
    )
    return SceneRecord(
        dataset=NAME,
        id=ref.id,
        split=ref.split,
        scale="sfm",
        time_kind="sequence" if how == "frame_timestamp" else "set",
        licence=LICENCE,
        citation=CITATION,
        source_conventions=SOURCE_CONVENTIONS,
        views={VIEW: view},
        motion=static_motion(times),
        provenance=Provenance(NAME, VERSION, asdict(params), ref.fingerprint),
        metadata=metadata,
    )


def _frames(
    source: Source,
    notes: Sequence[FrameNote],
    layers: dict[str, LayerRecord],
    params: Params,
    sources: list[SourceFile],
) -> Iterator[Frame]:
    for t, note in enumerate(notes):
        image = source.data(note.image, sources)
        check_photo(image, note.size, source.where(note.image))
        values: dict[str, Any] = {"rgb": image, "z_depth": _z_depth(source, note, sources)}
        for name, path in (("foreground", note.mask), ("depth_confidence", note.depth_mask)):
            if name in layers:
                bits = 8 if layers[name].value_scale else 1
                values[name] = _mask(source, path, bits, note, sources)
        if params.depth_mask == "apply":
            valid = decode_image(values["depth_confidence"], source.where(note.image)) > 0
            values["z_depth"] = np.where(valid, values["z_depth"], NO_NUMBER)
        yield Frame(VIEW, t, values)


def _mask(source: Source, path: str | None, bits: int, note: FrameNote, sources: list[SourceFile]) -> bytes:
    if path is None:  # a frame without depth: no confidence in it
        return empty_mask(bits, note.size)
    data = source.data(path, sources)
    check_mask(data, bits, note.size, source.where(path))
    return data


def _z_depth(source: Source, note: FrameNote, sources: list[SourceFile]) -> NDArray[np.uint16]:
    if note.depth is None:
        return np.full(note.size[::-1], NO_NUMBER)
    return depth_codes(source.data(note.depth, sources), note.size, source.where(note.depth))
