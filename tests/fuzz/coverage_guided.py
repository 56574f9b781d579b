"""Coverage-guided fuzzing of the parsers of native files, with Atheris (libFuzzer for Python).

    pip install atheris                                              # Linux, Python 3.11 to 3.13; no part of `dev`
    python tests/fuzz/coverage_guided.py                             # every target, 10^6 inputs each
    python tests/fuzz/coverage_guided.py pfm sens --runs 100000 --seconds 60
    python tests/fuzz/coverage_guided.py --reproduce pfm out/fuzz/pfm/crash-...

Any bytes must give a value or one of datakit's own errors. Another exception, ten seconds for one input, or more memory
than 2 GiB end a target with the input in `--out`/TARGET/crash-..., and the exit status is 1. What was found interesting
stays in `--out`/TARGET/corpus, from which the next run goes on. Checksums would keep almost every input from the code
behind them: those of PNG chunks and TFRecords are made right first (targets with `raw` leave them as they come).
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
#: Packages whose branches guide the search.
INSTRUMENTED = ["converters", "datakit.errors", "datakit.scene.codecs", "datakit.export.colmap_model"]
#: Functions that numba compiles; it cannot read their bytecode once it is instrumented.
COMPILED = ["converters.waymo.kernels", "datakit.motion"]
_SECONDS_AN_INPUT, _MIB = 10, 2048
#: Where files live that a parser must open: on a disk they take most of the time.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """Inputs to start from, and what is done with each."""

    seeds: list[bytes]
    parse: Parse


def right_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def right_records(data: bytes) -> bytes:
    """Frame bytes as one TFRecord with right checksums."""
    from converters.native.tfrecord import masked_crc

    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


# --- targets ------------------------------------------------------------------------------------------------------


def _blendedmvs(_: Path) -> dict[str, Target]:
    from converters.blendedmvs import pfm, texts

    def cam(data: bytes) -> None:
        camera = texts.parse_cam(data, "x")
        texts.pose_of(camera, "x")
        texts.intrinsics_of(camera, "x")

    values = np.array([[1, 2.5, np.nan], [0, np.inf, 3]], np.float32)
    rows = (
        b"extrinsic\n0 -1 0 1 \n1 0 0 2 \n0 0 1 3 \n0 0 0 1 \n\nintrinsic\n50 0 33.5 \n0 52 23 \n0 0 1 \n\n"
    )
    return {
        "pfm": Target(
            [f"Pf\n3 2\n{s}\n".encode() + values.tobytes() for s in ("-1.000000", "1.0")],
            lambda data: pfm.z_from_pfm(pfm.parse_pfm(data, "x")),
        ),
        "cam": Target([rows + tail for tail in (b"1 0.5\n", b"1 0.5 4\n", b"1e0 .5 4.0 9\n")], cam),
        "pair": Target([b"3\n0\n2 1 50.5 9 1e1 \n1\n0  \n9\n1 0 3\n"], lambda d: texts.parse_pairs(d, "x")),
        "list": Target([b"5b7a3890fc8fcf6781e2593a\r\n"], lambda data: texts.parse_list(data, "x")),
    }


def _co3dv2(folder: Path) -> dict[str, Target]:
    from converters.co3dv2 import Params, annotations, camera, images, jgz, setlists

    frame = {
        "sequence_name": "110_13051_23361",
        "frame_number": 3,
        "frame_timestamp": 0.5,
        "image": {"path": "a/b.jpg", "size": [3, 4]},
        "depth": {"path": "a/b.png", "scale_adjustment": 1.0, "mask_path": None},
        "mask": {"path": "a/m.png", "mass": 10.0},
        "viewpoint": {
            "R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            "T": [0, 0, 5],
            "focal_length": [4, 4.5],
            "principal_point": [0.1, -0.2],
            "intrinsics_format": "ndc_isotropic",
        },
        "meta": {"frame_type": "train_known"},
    }
    text = json.dumps([frame, {**frame, "viewpoint": None, "depth": None}]).encode()

    def notes(data: bytes) -> None:
        for item in jgz.array_items([data[:37], data[37:]], "x"):
            note = annotations.parse_frame(item.value, "x")
            if note.viewpoint is not None:
                camera.intrinsics_of(note.viewpoint, note.size)
                camera.pose_of(note.viewpoint, Params())

    def sequences(data: bytes) -> None:
        for item in jgz.array_items([data], "x"):
            annotations.parse_sequence(item.value, "x")

    def unpacked(data: bytes) -> None:
        path = folder / "x.jgz"
        path.write_bytes(data)
        for item in jgz.array_items(jgz.Unpacked(path).pieces(), "x"):
            annotations.parse_frame(item.value, "x")

    def depth(data: bytes) -> None:
        images.z_from_half(images.decode_half(data, (4, 3), "x"), 1.5)

    def mask(data: bytes) -> None:
        images.check_mask(data, images.mask_bits(data[:25]), (4, 3), "x")
        images.is_black(data, "x")

    from datakit.scene import encode_png

    depth_png = encode_png(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    masks = [encode_png(np.ones((3, 4), np.uint8)), images.empty_mask(1, (4, 3))]
    sequence = b'[{"sequence_name": "s", "viewpoint_quality_score": 0.5, "point_cloud": {"n_points": 3}}]'
    lists = b'{"train": [["s", 1, "p"], ["s", 0, "p"]], "val": [], "test": [["t", 3, "p"]]}'
    return {
        "frame-annotations": Target([text], notes),
        "sequence-annotations": Target([sequence], sequences),
        "jgz": Target([gzip.compress(text, mtime=0)], unpacked),
        "set-list": Target([lists], lambda data: setlists.parse_list(data, "x")),
        "depth-png": Target([depth_png], lambda data: depth(right_png(data))),
        "depth-png-raw": Target([depth_png], depth),
        "mask-png": Target(masks, lambda data: mask(right_png(data))),
    }


def _scannet(folder: Path) -> dict[str, Target]:
    from converters.scannet import assemble, exported, sens, texts
    from tests.converters.scannet.scans import write_hand

    def sens_file(data: bytes) -> None:
        file = io.BytesIO(data)
        index = sens.read_index(file, "x")
        sens.calibration(index.header, "x")
        names = [str(t) for t in range(len(index.timestamps))]
        assemble.exact_poses(index.camera_to_world, "x", names)
        assemble.steady_times(index.timestamps)
        for t in range(len(names)):
            _, _, depth = sens.read_payloads(file, index, t, "x")
            sens.decode_depth(depth, index.header, "x")

    pgm = b"P5 4 3 65535\n" + bytes(24)
    matrix = b"1 0 0 2.5\n0 1 0 -inf\n0 0 1 0\n0 0 0 1\n"
    return {
        "sens": Target([write_hand(folder).read_bytes()], sens_file),
        "pgm": Target([pgm], lambda data: exported._depth_codes(data, (4, 3), "x")),
        "matrix": Target([matrix], lambda data: texts.parse_matrix(data.decode("latin-1"), "x")),
        "scan-txt": Target([b"a = 1\r\nb = 2 3 \r\n"], lambda d: texts.parse_pairs(d.decode("latin-1"))),
    }


def _colmap(folder: Path) -> dict[str, Target]:
    from converters.colmap import dense, lens
    from converters.colmap.model import FILES, parse_model
    from tests.converters.colmap.workspaces import write_hand

    out: dict[str, Target] = {}
    for suffix in (".bin", ".txt"):
        model = write_hand(folder / suffix[1:], as_text=suffix == ".txt") / "sparse" / "0"
        good = [(model / f"{name}{suffix}").read_bytes() for name in FILES]
        for number, name in enumerate(FILES):

            def parse(
                data: bytes, number: int = number, good: list[bytes] = good, suffix: str = suffix
            ) -> None:
                files = [*good[:number], data, *good[number + 1 :]]
                for camera in parse_model(*files, suffix, FILES).cameras.values():
                    lens.lens_of(camera, "auto", "x")

            out[f"colmap-{name}-{suffix[1:]}"] = Target([good[number]], parse)
    depth = b"4&3&1&" + np.arange(12, dtype="<f4").tobytes()
    out["colmap-depth"] = Target([depth], lambda data: dense.parse_depth_map(data, "x"))
    return out


def _records(folder: Path) -> dict[str, Target]:
    from converters.native.tfrecord import read_record, walk_records

    path = folder / "x.tfrecord"

    def records(data: bytes) -> None:
        path.write_bytes(data)
        for span in walk_records(path):
            read_record(path, span, True)

    whole = right_records(b"payload")
    return {
        "tfrecord": Target([b"payload"], lambda data: records(right_records(data))),
        "tfrecord-raw": Target([whole, whole + right_records(b"")], records),
    }


def _waymo(folder: Path) -> dict[str, Target]:
    from converters import waymo
    from converters.native.tfrecord import read_record, walk_records
    from converters.waymo import v1
    from converters.waymo.proto import parse

    world = waymo.make_world(0, num_frames=2, size=(32, 24), motion="rigid")
    waymo.write_native(iter([world]), folder / "waymo", "v1")
    (file,) = (folder / "waymo").rglob("*.tfrecord")
    payload, _ = read_record(file, next(iter(walk_records(file))), True)

    def frame(data: bytes) -> None:
        message = parse("Frame", data, "x")
        v1.calibration(message, "x")
        v1.head(message, "x")
        v1.range_images(message, "x")

    def matrix(data: bytes) -> None:
        for kind, dtype in (("MatrixFloat", np.float32), ("MatrixInt32", np.int32)):
            v1.read_matrix(data, kind, dtype, "x")

    small = parse("MatrixInt32", b"", "x")
    small.data.extend([1, -2, 300])
    small.shape.dims.extend([3, 1, 1])
    return {
        "waymo-frame": Target([payload], frame),
        "waymo-matrix": Target([small.SerializeToString()], matrix),
    }


#: Names of the targets and what makes them; only the group that is asked for is made.
GROUPS: dict[str, Callable[[Path], dict[str, Target]]] = {
    "pfm cam pair list": _blendedmvs,
    "frame-annotations sequence-annotations jgz set-list depth-png depth-png-raw mask-png": _co3dv2,
    "sens pgm matrix scan-txt": _scannet,
    "colmap-cameras-bin colmap-images-bin colmap-points3D-bin colmap-cameras-txt colmap-images-txt "
    "colmap-points3D-txt colmap-depth": _colmap,
    "tfrecord tfrecord-raw": _records,
    "waymo-frame waymo-matrix": _waymo,
}
NAMES = [name for names in GROUPS for name in names.split()]


def make_target(name: str, folder: Path) -> Target:
    """Make one target; files that its parser must open lie in `folder`."""
    (make,) = [make for names, make in GROUPS.items() if name in names.split()]
    return make(folder)[name]


# --- running ------------------------------------------------------------------------------------------------------


def fuzz(name: str, folder: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends; so the folder is another's to remove."""
    import atheris

    instrument = atheris.instrument_imports(include=INSTRUMENTED, exclude=COMPILED)
    with instrument:
        target = make_target(name, Path(folder))
        from datakit.errors import DatakitError

        def one(data: bytes) -> None:
            try:
                target.parse(data)
            except DatakitError as error:
                assert error.what and str(error)

        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


def run(name: str, runs: int, seconds: int, out: Path) -> tuple[int, str]:
    """Fuzz one target in a process of its own.

    Returns:
        Exit status, and the last lines of its output.
    """
    corpus = out / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(make_target(name, Path(folder)).seeds):
            (corpus / f"seed{number}").write_bytes(seed)
    largest = max(path.stat().st_size for path in corpus.iterdir())
    arguments = [
        f"-runs={runs}",
        f"-max_total_time={seconds}",
        f"-timeout={_SECONDS_AN_INPUT}",
        f"-rss_limit_mb={_MIB}",
        f"-max_len={max(512, 2 * largest)}",
        f"-artifact_prefix={out / name}/",
        str(corpus),
    ]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        command = [sys.executable, __file__, "--inside", name, folder, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, errors="replace")
    return done.returncode, done.stdout + done.stderr


def main() -> None:
    """Run the targets asked for and report."""
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of a target")
    parser.add_argument(
        "--seconds", type=int, default=0, help="at most, of a target; 0 for as long as it takes"
    )
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument(
        "--reproduce", nargs=2, metavar=("TARGET", "FILE"), help="parse one input and say how it ends"
    )
    options = parser.parse_args()
    if options.reproduce:
        with tempfile.TemporaryDirectory() as folder:
            make_target(options.reproduce[0], Path(folder)).parse(Path(options.reproduce[1]).read_bytes())
        return
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    num_failed = 0
    for name in options.targets or NAMES:
        status, output = run(name, options.runs, options.seconds, options.out.resolve())
        done = re.findall(r"^(?:Done (\d+) runs|#(\d+)\s)", output, re.MULTILINE)
        executions = max((int(a or b) for a, b in done), default=0)
        cover = re.findall(r"cov: (\d+)", output)
        print(
            f"{name:<24}{executions:>10} inputs, {cover[-1] if cover else 0} branches, "
            f"{'FAILED' if status else 'ok'}",
            flush=True,
        )
        if status:
            num_failed += 1
            print("\n".join(output.splitlines()[-30:]), file=sys.stderr)
    sys.exit(int(num_failed > 0))


if __name__ == "__main__":
    main()
