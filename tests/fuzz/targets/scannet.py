"""ScanNet: .sens files, and the text files and depth maps of exports."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from datakit.errors import DatakitError

from .kit import Target


def make(folder: Path) -> dict[str, Target]:
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

    def matrix(data: bytes) -> None:
        found = texts.parse_matrix(data.decode("latin-1"), "x")
        with contextlib.suppress(DatakitError):
            assemble.corner_k(found, (640, 480), "x")
        assemble.exact_poses(found[None], "x", ["0"])

    def scan(data: bytes) -> None:
        (folder / "x.txt").write_bytes(data)
        texts.scan_metadata(folder, Path("x.txt"), [])

    def info(data: bytes) -> None:
        (folder / exported.INFO).write_bytes(data)
        matrices, shift = exported._info(folder, Path(), {"color": (4, 3), "depth": (4, 3)}, [])
        assemble.check_registered({k: v for k, v in matrices.items() if k.startswith("extrinsic")}, "x")
        assemble.corner_k(matrices["intrinsic_color"], (4, 3), "x")
        assemble.z_of_code(assemble.metres_per_code(shift, "x"))

    eye = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
    sizes = "".join(f"m_{part}Width = 4\nm_{part}Height = 3\n" for part in ("color", "depth"))
    rows = "".join(
        f"{key} = {eye if 'Extrinsic' in key else '4 0 1.5 0 0 4 1 0 0 0 1 0 0 0 0 1'}\n"
        for key in exported._INFO_MATRICES.values()
    )
    pgm = b"P5 4 3 65535\n" + bytes(24)
    matrices = [b"1 0 0 2.5\n0 1 0 -inf\n0 0 1 0\n0 0 0 1\n", b"577 0 319 0\n0 578 239 0\n0 0 1 0\n0 0 0 1\n"]
    about = (
        f"axisAlignment = {eye} \r\nsceneType = Apartment\nnumColorFrames = 5578\nnumIMUmeasurements = 9\n"
    )
    return {
        "sens": Target([write_hand(folder).read_bytes()], sens_file),
        "pgm": Target([pgm], lambda data: exported._depth_codes(data, (4, 3), "x")),
        "matrix": Target(matrices, matrix),
        "scan-txt": Target([about.encode()], scan),
        "scan-info": Target([f"{sizes}m_depthShift = 1000\n{rows}".encode()], info),
    }
