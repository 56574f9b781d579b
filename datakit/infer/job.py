"""Infer from a whole video: windows one by one, each kept as it is finished, then stitched and written.

A job's folder:

    job.json          what the job is; another job is refused
    windows/*.npz     a finished window each
    scene.h5, ...     outputs, made from the windows at the end
    report.json       what was made; there once the job is complete
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datakit.convert.lock import locked_folder
from datakit.errors import UsageError

from .answers import Answerer, ClipFrames
from .cost import Counter, CountingClip, Estimate, chunk_of, estimate_cost, measure_rate
from .folder import JOB_VERSION, WINDOWS, WindowFolder, claim_folder, write_report
from .outputs import OutputOptions, seam_text, write_outputs
from .params import InferParams
from .requests import TrackRequests, parse_requests
from .rerun_log import check_rerun
from .scene_output import plain
from .stitch import Reconstruction, stitch
from .tracks import TrackQueries, carry_back, carry_tracks, follow, join_tracks
from .video import FrameSource, Selection, open_source
from .window import WindowResult, reconstruct_window


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        out: The job's folder.
        written: Name -> path of the outputs.
        num_frames: Frames used.
        num_windows: Windows.
        num_kept: Windows that were there already.
        seams: As plain data, one for each pair of windows that follow each other.
        num_queries: Asked now, calibration not counted.
        seconds: Of the windows that were made now.
    """

    out: Path
    written: Mapping[str, Path]
    num_frames: int
    num_windows: int
    num_kept: int
    seams: Sequence[Mapping[str, Any]]
    num_queries: int = 0
    seconds: float = 0.0

    @property
    def num_bad_seams(self) -> int:
        """Seams whose two estimates disagree."""
        return sum(bool(seam["is_bad"]) for seam in self.seams)


def infer(
    source: str | Path | FrameSource,
    out: str | Path,
    answerer: Answerer,
    params: InferParams | None = None,
    *,
    selection: Selection | None = None,
    view: str | None = None,
    image_rate: float = 24.0,
    tracks: str = "grid:16",
    outputs: OutputOptions | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> JobResult:
    """Infer depth, cameras and tracks of a video, an image folder or a scene, and write them.

    Windows that lie in `out` already, made from the same source by the same model with the same parameters, are not
    made again; so a job that was stopped in any way goes on when it is called again, and ends with the same bytes.

    Args:
        source: What to read, or an open source; then `selection`, `view` and `image_rate` are not looked at.
        out: The job's folder; made if missing.
        answerer: The model, or whatever answers queries.
        params: How; None for the defaults, with windows as long as the answerer can take.
        selection: Which frames.
        view: View of a scene.
        image_rate: Images a second of a folder.
        tracks: What to follow: "none", "grid:N", or a CSV file; see `datakit.infer.requests`.
        outputs: What to write.
        overwrite: Delete another job's files in `out`.
        say: Told what is going on, a line at a time: estimate, windows, outputs.
        progress: Show a bar on the error stream if that is a terminal.

    Raises:
        UsageError: Another job lies in `out`, another process is at work there, or an argument is wrong.
        LayoutError, FormatError, ConventionError: The source cannot be used.
        KeyboardInterrupt: Ctrl-C; all finished windows are kept.
    """
    if isinstance(source, str | Path):
        source = open_source(source, selection, view=view, image_rate=image_rate)
    say = say or (lambda text: None)
    params = params or default_params(answerer)
    options = outputs or OutputOptions()
    if params.window > answerer.max_frames:
        raise UsageError(
            "The window is longer than the model's clips",
            expected=f"at most {answerer.max_frames}",
            found=params.window,
        )
    requests = parse_requests(tracks, source.info)
    spans = plan_windows(source.info.num_frames, params.window, params.overlap)
    job = _describe(source, answerer, params, requests, spans)
    if "rerun" in options.kinds:
        check_rerun()  # before hours of work, not after
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        identity = claim_folder(folder, job, overwrite)
        windows = WindowFolder(folder / WINDOWS, spans, identity)
        return _run(folder, windows, source, answerer, params, requests, options, job, say, progress)


def estimate(
    source: str | Path | FrameSource,
    answerer: Answerer,
    params: InferParams | None = None,
    *,
    tracks: str = "grid:16",
) -> Estimate:
    """Measure what a job will cost, from its first window; writes nothing. Arguments as of `infer`."""
    source = open_source(source) if isinstance(source, str | Path) else source
    params = params or default_params(answerer)
    requests = parse_requests(tracks, source.info)
    spans = plan_windows(source.info.num_frames, params.window, params.overlap)
    _, frames = next(_clips(source, spans, [0]))
    start = time.monotonic()
    clip = answerer.open(frames)
    opening = time.monotonic() - start
    rate = measure_rate(clip, chunk_of(answerer))
    return estimate_cost(spans, range(len(spans)), source.info.size, opening, rate, params, requests)


def default_params(answerer: Answerer, **changes: Any) -> InferParams:
    """Return the default parameters for an answerer: windows no longer than it can take, a third of them shared.

    Args:
        answerer: Who will answer.
        changes: Fields of `InferParams`; None leaves the default.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    window = given.setdefault("window", min(InferParams().window, answerer.max_frames))
    given.setdefault("overlap", max(1, window // 3))
    return InferParams(**given)


def plan_windows(num_frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Cut frames into windows that overlap.

    Args:
        num_frames: Frames of the video.
        window: Longest window.
        overlap: Frames that a window shares with the one before; the last one may share more, since it is moved back
            to be of full length.

    Returns:
        (first, one after the last) of each window.

    >>> plan_windows(100, 48, 16)
    [(0, 48), (32, 80), (52, 100)]
    """
    if num_frames <= window:
        return [(0, num_frames)]
    if not 1 <= overlap < window:
        raise UsageError(
            "Windows must overlap by less than their length", expected=f"1 to {window - 1}", found=overlap
        )
    firsts = range(0, num_frames - window, window - overlap)
    return [*((first, first + window) for first in firsts), (num_frames - window, num_frames)]


# --- what the job is -------------------------------------------------------------------------------------------------


def _describe(
    source: FrameSource,
    answerer: Answerer,
    params: InferParams,
    requests: TrackRequests,
    spans: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Everything that a window's bytes follow from, as plain data."""
    job = {
        "format": "datakit-infer",
        "version": JOB_VERSION,
        "source": source.info.identity(),
        "model": dict(answerer.describe()),
        "params": asdict(params),
        "tracks": requests.describe(),
        "windows": [list(span) for span in spans],
    }
    return json.loads(json.dumps(job, sort_keys=True))


# --- the run ---------------------------------------------------------------------------------------------------------


def _run(
    folder: Path,
    windows: WindowFolder,
    source: FrameSource,
    answerer: Answerer,
    params: InferParams,
    requests: TrackRequests,
    options: OutputOptions,
    job: Mapping[str, Any],
    say: Callable[[str], None],
    progress: bool,
) -> JobResult:
    info = source.info
    say(
        f"{info.path}: {info.num_frames} of {info.num_all} frames, {info.size[0]} x {info.size[1]}; {info.clock}"
    )
    for note in info.notes:
        say(f"note: {note}")
    missing = [number for number in range(len(windows)) if windows.find(number) is None]
    counter = Counter()
    start = time.monotonic()
    if missing:
        _make_windows(windows, missing, source, answerer, params, requests, counter, say, progress)
    else:
        say(f"all {len(windows)} windows are there already")
    if len(requests.frame):
        _follow_back(windows, source, answerer, params, requests, counter)
    seconds = time.monotonic() - start
    rec = stitch(windows, params)
    seams = _say_seams(rec, say)
    written = write_outputs(folder, rec, windows, source, job, options, say)
    write_report(folder, written, seams)
    return JobResult(
        folder,
        written,
        info.num_frames,
        len(windows),
        len(windows) - len(missing),
        seams,
        counter.count,
        seconds,
    )


def _make_windows(
    windows: WindowFolder,
    missing: Sequence[int],
    source: FrameSource,
    answerer: Answerer,
    params: InferParams,
    requests: TrackRequests,
    counter: Counter,
    say: Callable[[str], None],
    progress: bool,
) -> None:
    size = source.info.size
    with _bar(progress) as bar:
        for number, frames in _clips(source, windows.spans, missing):
            start = time.monotonic()
            clip = answerer.open(frames)
            if number == missing[0]:
                opening = time.monotonic() - start
                rate = measure_rate(clip, chunk_of(answerer))
                cost = estimate_cost(windows.spans, missing, size, opening, rate, params, requests)
                say(str(cost))
                bar.reset(total=sum(cost.queries.values()))
            bar.set_postfix_str(f"window {number + 1} of {len(windows)}", refresh=False)
            previous = windows.find(number - 1) if number and not requests.is_empty else None
            queries = _queries_of(number, windows.spans, previous, params, requests, size)
            counting = CountingClip(clip, counter, bar.update)
            windows.save(number, reconstruct_window(counting, params, queries))


def _follow_back(
    windows: WindowFolder,
    source: FrameSource,
    answerer: Answerer,
    params: InferParams,
    requests: TrackRequests,
    counter: Counter,
) -> None:
    """Follow single pixels into windows before the one that holds their frame.

    A window is replaced by itself with more tracks, the last one first. What is there already is not asked again, so a
    run that was killed here goes on.
    """
    spans = windows.spans
    for number in reversed(range(len(windows) - 1)):
        earlier, later = windows[number], windows[number + 1]
        queries = carry_back(later, earlier, params, spans[number][1] - spans[number + 1][0])
        # Tracks of the grid begin where nothing was followed; they are not asked for before.
        queries = queries.take(queries.ids < len(requests.frame))
        if not len(queries):
            continue
        ((_, frames),) = _clips(source, spans, [number])
        clip = CountingClip(answerer.open(frames), counter, lambda count: None)
        back = follow(clip, queries, params, earlier.fx_fy, earlier.world_from_cam)
        windows.save(number, replace(earlier, tracks=join_tracks(earlier.tracks, back)))


def _bar(progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=1,
        unit="query",
        unit_scale=True,
        file=sys.stderr,
        disable=not (progress and sys.stderr.isatty()),
        dynamic_ncols=True,
    )


def _clips(
    source: FrameSource, spans: Sequence[tuple[int, int]], wanted: Sequence[int]
) -> Iterator[tuple[int, ClipFrames]]:
    """Stream the frames of the wanted windows; no more than two windows are ever held."""
    info, frames, at = source.info, source.frames(spans[wanted[0]][0]), spans[wanted[0]][0]
    rgb, held_from = np.zeros((0, *info.size[::-1], 3), np.uint8), at
    for number in wanted:
        first, stop = spans[number]
        for _ in range(at, first):  # of windows between that are there already
            next(frames)
            at += 1
        fresh = np.empty((stop - first, *info.size[::-1], 3), np.uint8)
        shared = max(0, held_from + len(rgb) - first)
        fresh[:shared] = rgb[len(rgb) - shared :]
        for row in range(shared, stop - first):
            fresh[row] = next(frames)
            at += 1
        rgb, held_from = fresh, first
        yield number, ClipFrames(rgb, info.times_s[first:stop], info.numbers[first:stop])


def _queries_of(
    number: int,
    spans: Sequence[tuple[int, int]],
    previous: WindowResult | None,
    params: InferParams,
    requests: TrackRequests,
    size: tuple[int, int],
) -> TrackQueries | None:
    """Return what a window follows: tracks of the window before that were still seen, and those that begin here."""
    if requests.is_empty:
        return None
    first, stop = spans[number]
    first_new = spans[number - 1][1] if number else 0
    carried = None if previous is None else carry_tracks(previous, params, first_new - first)
    if carried is not None:
        # A window that is made again finds tracks in the one before that were followed back from here.
        carried = carried.take(~np.isin(carried.ids, np.flatnonzero(requests.frame >= first_new)))
    taken = np.zeros((0, 2)) if carried is None else carried.uv
    ids, frames, uv = requests.begin(number, first_new, stop, size, taken)
    begun = TrackQueries(uv=uv, frame=frames - first, ids=ids)
    if carried is None:
        return begun
    return TrackQueries(
        uv=np.concatenate([carried.uv, begun.uv]),
        frame=np.concatenate([carried.frame, begun.frame]),
        ids=np.concatenate([carried.ids, begun.ids]),
    )


def _say_seams(rec: Reconstruction, say: Callable[[str], None]) -> list[dict[str, Any]]:
    seams = [plain(asdict(seam)) for seam in rec.seams]
    bad = [seam for seam in seams if seam["is_bad"]]
    if seams:
        say(f"{len(seams)} seams, {len(bad)} of them bad")
    for seam in bad:
        say(f"bad seam: {seam_text(seam)}")
    return seams
