"""Frames per CPU-second and peak memory of conversion beside scripts in the style the field uses.

    python benchmarks/convert.py                                  # every converter
    python benchmarks/convert.py scannet-sens co3dv2 --frames 10 40 --rounds 3
    python benchmarks/convert.py kubric --size 256x256 --frames 24 240

Both programs read the same native files, which our own writers make of an analytic world, and run in turn, each in a
process of its own that first converts the short scene (imports, plugins, caches) and is then measured on the scene in
question: CPU seconds of the process, user and system, and the peak memory that the system says it had. Flat memory
shows as the same peak for both lengths.

Pictures have the sizes of the releases, but for COLMAP's and Waymo's, which are smaller, since these two writers render
every pixel; --size gives others. CO3D's differ from sequence to sequence, and stand here as upright HD video.
What was taken by a camera is noisy, which analytic planes are not: they would deflate to next to nothing, on both
sides, and coders would be compared where no real file is. So pictures get noise of one grey level; depth of a
structured-light camera 1.425e-3 z^2 metres and holes (Khoshelham and Oude Elberink 2012, "Accuracy and resolution of
Kinect depth data"); multi-view depth half a percent and holes. Frames are rendered at a quarter of
their size and enlarged before the noise, so that the files are made in minutes.

The scripts do with each frame what the published ones do: decode every layer, bring it to its unit, and save it again,
colour as JPEG or PNG, depth as 16-bit PNG or compressed npz, cameras as an npz a frame. Their docstrings say after
which script each is modelled; all are written here, single-threaded, with OpenCV and NumPy. They write no checksums,
no hashes of the sources, no contract, no motion. Read the ratios, not the times.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What one process used: CPU seconds of the measured part, peak MiB of all of it."""

    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Case:
    """One native form and the script that it is compared with."""

    dataset: str
    form: str
    script: Callable[[Path, Path], None]
    size: tuple[int, int]
    frames: tuple[int, int] = (12, 48)
    #: "structured light", "mvs", "rendered" (noise on the pictures alone), or "" for the world as it is.
    film: str = ""


def measure(name: str, *args: object) -> Usage:
    """Run one of `CHILDREN` in a process of its own."""
    command = [sys.executable, __file__, "--child", name, *map(str, args)]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed")
    # Linux counts KiB, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(float(said[-1]) if said else 0.0, usage.ru_maxrss * unit / 2**20)


# --- scripts of the field -----------------------------------------------------------------------------------------


def _load(path: Path) -> Any:
    import cv2

    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def _save_camera(target: Path, name: str, k: Any, pose: Any) -> None:
    import numpy as np

    np.savez(target / f"{name}.npz", intrinsics=np.float32(k), camera_pose=np.float32(pose))


def script_kubric(raw: Path, out: Path) -> None:
    """Follow the Kubric scripts of tracking projects: PNG colour and ids, npz for all that has fractions."""
    import cv2
    import numpy as np

    for clip in sorted(path.parent for path in raw.rglob("metadata.json")):
        target = out / clip.name
        target.mkdir(parents=True)
        meta = json.loads((clip / "metadata.json").read_text())
        ranges = json.loads((clip / "data_ranges.json").read_text())
        width, height = meta["metadata"]["resolution"]
        focal = meta["camera"]["focal_length"] / meta["camera"]["sensor_width"] * width
        rows, columns = np.mgrid[:height, :width] + 0.5
        ray = np.sqrt(1 + ((columns - width / 2) ** 2 + (rows - height / 2) ** 2) / focal**2)
        for t in range(meta["metadata"]["num_frames"]):
            cv2.imwrite(str(target / f"rgb_{t:05d}.png"), _load(clip / f"rgba_{t:05d}.png")[..., :3])
            z_depth = _load(clip / f"depth_{t:05d}.tiff").reshape(height, width) / ray
            np.savez_compressed(target / f"depth_{t:05d}.npz", z_depth.astype(np.float32))
            cv2.imwrite(str(target / f"segmentation_{t:05d}.png"), _load(clip / f"segmentation_{t:05d}.png"))
            for layer in ("forward_flow", "backward_flow"):
                low, high = ranges[layer]["min"], ranges[layer]["max"]
                flow = _load(clip / f"{layer}_{t:05d}.png")[..., :0:-1] / 65535 * (high - low) + low
                np.savez_compressed(target / f"{layer}_{t:05d}.npz", flow.astype(np.float32))
            normal = _load(clip / f"normal_{t:05d}.png")[..., ::-1] / 65535 * 2 - 1
            np.savez_compressed(target / f"normal_{t:05d}.npz", normal.astype(np.float32))
            coords = _load(clip / f"object_coordinates_{t:05d}.png")[..., ::-1] / 65535
            np.savez_compressed(target / f"object_coordinates_{t:05d}.npz", coords.astype(np.float32))


def script_blendedmvs(raw: Path, out: Path) -> None:
    """Follow DUSt3R's preprocess_blendedMVS.py: JPEG again, depth as a float image, one npz a camera."""
    import cv2
    import numpy as np

    for scene in sorted(path for path in raw.iterdir() if path.is_dir()):
        target = out / scene.name
        target.mkdir(parents=True)
        for cam in sorted((scene / "cams").glob("*_cam.txt")):
            name = cam.name[:8]
            words = cam.read_text().split()
            extrinsic = np.array(words[1:17], np.float32).reshape(4, 4)
            k = np.array(words[18:27], np.float32).reshape(3, 3)
            image = _load(scene / "blended_images" / f"{name}.jpg")
            depth = _read_pfm(scene / "rendered_depth_maps" / f"{name}.pfm")
            cv2.imwrite(str(target / f"{name}.jpg"), image)
            # Theirs is an OpenEXR, which deflates too; OpenCV's wheels come without it.
            np.savez_compressed(target / f"{name}_depth.npz", depth)
            _save_camera(target, name, k, np.linalg.inv(extrinsic))


def _read_pfm(path: Path) -> Any:
    import numpy as np

    with open(path, "rb") as file:
        file.readline()
        width, height = map(int, file.readline().split())
        dtype = "<f4" if float(file.readline()) < 0 else ">f4"
        return np.flipud(np.fromfile(file, dtype).reshape(height, width)).astype(np.float32)


def script_co3dv2(raw: Path, out: Path) -> None:
    """Follow DUSt3R's preprocess_co3d.py without its crop: JPEG, depth and mask as PNG again, one npz a camera."""
    import cv2
    import numpy as np

    for notes in sorted(raw.rglob("frame_annotations.jgz")):
        with gzip.open(notes, "rt") as file:
            frames = json.load(file)
        for frame in frames:
            if frame["depth"] is None or frame["viewpoint"] is None:
                continue
            path = Path(frame["image"]["path"])
            target = out / path.parts[0] / path.parts[1]
            target.mkdir(parents=True, exist_ok=True)
            image = _load(raw / path)
            depth = _load(raw / frame["depth"]["path"]).view(np.float16).astype(np.float32)
            depth = np.nan_to_num(depth * frame["depth"]["scale_adjustment"], posinf=0, neginf=0)
            mask = _load(raw / frame["mask"]["path"])
            valid = _load(raw / frame["depth"]["mask_path"])
            largest = max(float(depth.max()), 1e-6)
            cv2.imwrite(str(target / path.name), image)
            cv2.imwrite(
                str(target / f"{path.stem}_depth.png"),
                (depth * (valid > 0) / largest * 65535).astype(np.uint16),
            )
            cv2.imwrite(str(target / f"{path.stem}_mask.png"), mask)
            view = frame["viewpoint"]
            rotation, flip = np.array(view["R"]), np.diag([-1.0, -1, 1])
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation @ flip, -rotation @ np.array(view["T"])
            half = min(image.shape[:2]) / 2
            k = np.eye(3)
            k[0, 0], k[1, 1] = np.array(view["focal_length"]) * half
            k[:2, 2] = np.array(image.shape[1::-1]) / 2 - np.array(view["principal_point"]) * half
            np.savez(target / f"{path.stem}.npz", intrinsics=k, camera_pose=pose, maximum_depth=largest)


def script_scannet_sens(raw: Path, out: Path) -> None:
    """Follow the official Python exporter, then CUT3R's preprocess_scannet.py: JPEG again, 16-bit PNG, npz."""
    import cv2
    import numpy as np

    for path in sorted(raw.rglob("*.sens")):
        target = out / path.stem
        target.mkdir(parents=True)
        with open(path, "rb") as file:
            (_, length) = struct.unpack("<IQ", file.read(12))
            file.read(length)
            matrices = np.frombuffer(file.read(256), "<f4").reshape(4, 4, 4)
            _, _, _, _, width, height, _, count = struct.unpack("<iiIIIIfQ", file.read(36))
            for t in range(count):
                pose = np.frombuffer(file.read(64), "<f4").reshape(4, 4)
                _, _, num_colour, num_depth = struct.unpack("<QQQQ", file.read(32))
                image = cv2.imdecode(np.frombuffer(file.read(num_colour), np.uint8), cv2.IMREAD_COLOR)
                depth = np.frombuffer(zlib.decompress(file.read(num_depth)), "<u2").reshape(height, width)
                if not np.isfinite(pose).all():
                    continue
                cv2.imwrite(str(target / f"{t:05d}.jpg"), cv2.resize(image, (width, height)))
                cv2.imwrite(str(target / f"{t:05d}.png"), depth)
                _save_camera(target, f"{t:05d}", matrices[2][:3, :3], pose)


def script_scannet_export(raw: Path, out: Path) -> None:
    """Follow CUT3R's preprocess_scannet.py: colour resized to depth and encoded, depth as PNG again, npz."""
    import cv2
    import numpy as np

    for folder in sorted(path.parent for path in raw.rglob("color") if path.is_dir()):
        target = out / folder.name
        target.mkdir(parents=True)
        k = np.loadtxt(folder / "intrinsic" / "intrinsic_depth.txt")[:3, :3]
        for file in sorted((folder / "color").iterdir(), key=lambda p: int(p.stem)):
            pose = np.loadtxt(folder / "pose" / f"{file.stem}.txt")
            if not np.isfinite(pose).all():
                continue
            depth = _load(folder / "depth" / f"{file.stem}.png")
            image = cv2.resize(_load(file), depth.shape[::-1])
            cv2.imwrite(str(target / f"{int(file.stem):05d}.jpg"), image)
            cv2.imwrite(str(target / f"{int(file.stem):05d}.png"), depth)
            _save_camera(target, f"{int(file.stem):05d}", k, pose)


def script_colmap(raw: Path, out: Path) -> None:
    """Follow the usual loaders of a dense workspace: model through pycolmap, image and depth map saved again."""
    import cv2
    import numpy as np
    import pycolmap

    for maps in sorted(raw.rglob("depth_maps")):
        workspace = maps.parents[1]
        target = out / workspace.name
        target.mkdir(parents=True)
        model = pycolmap.Reconstruction(str(workspace / "sparse"))
        for image in sorted(model.images.values(), key=lambda i: i.name):
            name = Path(image.name).stem
            with open(maps / f"{image.name}.geometric.bin", "rb") as file:
                head = b""
                while head.count(b"&") < 3:
                    head += file.read(1)
                width, height, _ = map(int, head.decode().split("&")[:3])
                depth = np.fromfile(file, "<f4").reshape(height, width)
            picture = _load(workspace / "images" / image.name)
            cv2.imwrite(str(target / f"{name}.png"), picture)
            np.savez_compressed(target / f"{name}_depth.npz", depth)
            pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
            _save_camera(target, name, model.cameras[image.camera_id].calibration_matrix(), pose.matrix())


def script_dynamic_replica(raw: Path, out: Path) -> None:
    """Follow the tracking projects' scripts: both eyes as PNG again, depth and flow as npz, trajectories as npy."""
    import cv2
    import numpy as np
    import torch

    for notes in sorted(raw.rglob("frame_annotations_*.jgz")):
        with gzip.open(notes, "rt") as file:
            frames = json.load(file)
        for frame in frames:
            path = Path(frame["image"]["path"])
            target = out / path.parts[0]
            target.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / f"{path.stem}.png"), _load(notes.parent / path))
            depth = _load(notes.parent / frame["depth"]["path"]).view(np.float16).astype(np.float32)
            np.savez_compressed(target / f"{path.stem}_depth.npz", depth)
            for key in ("flow_forward", "flow_backward"):
                if frame.get(key) and frame[key].get("path"):
                    flow = _load(notes.parent / frame[key]["path"]).view(np.float16).astype(np.float32)
                    np.savez_compressed(target / f"{path.stem}_{key}.npz", flow[..., :2])
            for key in ("mask", "instance_id_map_path"):
                entry = frame.get(key)
                where = entry.get("path") if isinstance(entry, dict) else entry
                if where:
                    cv2.imwrite(str(target / f"{path.stem}_{key}.png"), _load(notes.parent / where))
            where = (frame.get("trajectories") or {}).get("path")
            if where:
                tracks = torch.load(notes.parent / where, weights_only=True)
                plain = {k: v.numpy() for k, v in tracks.items() if hasattr(v, "numpy")}
                np.savez_compressed(target / f"{path.stem}_tracks.npz", **plain)
            np.savez(
                target / f"{path.stem}.npz",
                **{k: np.array(v) for k, v in frame["viewpoint"].items() if k != "intrinsics_format"},
            )


def script_waymo(raw: Path, out: Path) -> None:
    """Follow DUSt3R's preprocess_waymo.py: the official package's steps in NumPy, then JPEG again and npz depth.

    Messages go through the same protobuf runtime and message classes as in the converter.
    """
    import cv2
    import numpy as np

    from converters.waymo.proto import message_class

    for path in sorted(raw.rglob("*.tfrecord")):
        target = out / path.stem
        target.mkdir(parents=True)
        with open(path, "rb") as file:
            while head := file.read(12):
                (length,) = struct.unpack("<Q", head[:8])
                frame = message_class("Frame")()
                frame.ParseFromString(file.read(length))
                file.read(4)
                clouds = [_waymo_points(frame, laser, message_class) for laser in frame.lasers]
                points = np.concatenate([cloud for cloud, _ in clouds])
                where = np.concatenate([projection for _, projection in clouds])
                cameras = {c.name: c for c in frame.context.camera_calibrations}
                for image in frame.images:
                    rgb = cv2.imdecode(np.frombuffer(image.image, np.uint8), cv2.IMREAD_COLOR)
                    calibration = cameras[image.name]
                    vehicle_from_camera = np.array(calibration.extrinsic.transform).reshape(4, 4)
                    seen = where[:, 0] == image.name
                    local = np.linalg.inv(vehicle_from_camera) @ np.c_[points[seen], np.ones(seen.sum())].T
                    depth = np.zeros(rgb.shape[:2], np.float32)
                    uv = np.clip(where[seen, 1:3], 0, np.array(rgb.shape[1::-1]) - 1)
                    depth[uv[:, 1], uv[:, 0]] = local[0]
                    name = f"{frame.timestamp_micros}_{image.name}"
                    cv2.imwrite(str(target / f"{name}.jpg"), rgb)
                    np.savez_compressed(target / f"{name}_depth.npz", depth)
                    pose = np.array(image.pose.transform).reshape(4, 4) @ vehicle_from_camera
                    _save_camera(target, name, np.array(calibration.intrinsic), pose)


def _waymo_points(frame: Any, laser: Any, message_class: Callable[[str], Any]) -> tuple[Any, Any]:
    """Place the first returns of a lidar in the vehicle frame, and say which pixels see them."""
    import numpy as np

    def matrix(data: bytes, kind: str) -> Any:
        message = message_class(kind)()
        message.ParseFromString(zlib.decompress(data))
        return np.array(message.data).reshape(message.shape.dims)

    (calibration,) = [c for c in frame.context.laser_calibrations if c.name == laser.name]
    image = matrix(laser.ri_return1.range_image_compressed, "MatrixFloat")
    projection = matrix(laser.ri_return1.camera_projection_compressed, "MatrixInt32")
    height, width = image.shape[:2]
    extrinsic = np.array(calibration.extrinsic.transform).reshape(4, 4)
    low, high = calibration.beam_inclination_min, calibration.beam_inclination_max
    beams = (
        np.array(calibration.beam_inclinations)
        if calibration.beam_inclinations
        else (low + (np.arange(height) + 0.5) / height * (high - low))
    )
    inclination = beams[::-1, None]
    yaw = np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    azimuth = ((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi - yaw
    rays = np.stack(
        np.broadcast_arrays(
            np.cos(inclination) * np.cos(azimuth), np.cos(inclination) * np.sin(azimuth), np.sin(inclination)
        ),
        axis=-1,
    )
    points = (image[..., :1] * rays) @ extrinsic[:3, :3].T + extrinsic[:3, 3]
    if laser.ri_return1.range_image_pose_compressed:
        pose = matrix(laser.ri_return1.range_image_pose_compressed, "MatrixFloat")
        (cr, cp, cy), (sr, sp, sy) = (
            np.cos(np.moveaxis(pose[..., :3], -1, 0)),
            np.sin(np.moveaxis(pose[..., :3], -1, 0)),
        )
        turn = np.stack(
            [
                np.stack([cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr], -1),
                np.stack([sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr], -1),
                np.stack([-sp, cp * sr, cp * cr], -1),
            ],
            axis=-2,
        )
        there = np.einsum("hwij,hwj->hwi", turn, points) + pose[..., 3:]
        frame_from_global = np.linalg.inv(np.array(frame.pose.transform).reshape(4, 4))
        points = there @ frame_from_global[:3, :3].T + frame_from_global[:3, 3]
    hit = image[..., 0] > 0
    return points[hit], projection[hit]


CASES = {
    "kubric": Case("kubric", "worker", script_kubric, (512, 512), (6, 24)),
    # Its depth is rendered from a mesh, its pictures are blended with renderings.
    "blendedmvs": Case("blendedmvs", "low-res", script_blendedmvs, (768, 576), film="rendered"),
    "co3dv2": Case("co3dv2", "single-sequence", script_co3dv2, (720, 1280), film="mvs"),
    "scannet-sens": Case("scannet", "sens", script_scannet_sens, (1296, 968), film="structured light"),
    "scannet-export": Case("scannet", "export", script_scannet_export, (1296, 968), film="structured light"),
    "colmap": Case("colmap", "dense", script_colmap, (640, 480)),
    "dynamic_replica": Case(
        "dynamic_replica", "split", script_dynamic_replica, (1280, 720), (6, 24), "rendered"
    ),
    "waymo": Case("waymo", "v1", script_waymo, (640, 480)),
}


# --- what is measured ---------------------------------------------------------------------------------------------


def child_native(case: str, raw: str, frames: str, width: str, height: str) -> None:
    """Write one scene in its native form."""
    from datakit.convert import load_converter
    from datakit.worlds import random_world

    converter = load_converter(CASES[case].dataset)
    make = getattr(converter, "make_world", random_world)
    world = make(0, num_frames=int(frames), size=(int(width), int(height)), motion="rigid")
    if CASES[case].film:
        # A frozen record of the world; its writers ask it for nothing but frames.
        object.__setattr__(world, "render", filmed(world, CASES[case].film))
    Path(raw).mkdir(parents=True)
    converter.write_native(iter([world]), Path(raw), CASES[case].form)


def filmed(world: Any, film: str) -> Callable[..., Any]:
    """Return a `World.render` as a camera would see it; see above. The noise is a function of world and frame."""
    import cv2
    import numpy as np

    render = world.render

    def enlarged(layer: Any, size: tuple[int, int]) -> Any:
        if np.issubdtype(layer.dtype, np.integer) and layer.ndim == 2:
            return cv2.resize(layer.astype(np.int32), size, interpolation=cv2.INTER_NEAREST).astype(
                layer.dtype
            )
        return cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR)

    def shoot(t: int, view: str = "camera", intrinsics: Any = None, size: Any = None) -> Any:
        camera = world.views[view]
        size = tuple(size or camera.size)
        small = tuple(-(-side // 4) for side in size)
        scale = np.array([small[0] / size[0], small[1] / size[1], 1.0])
        k = scale[:, None] * (camera.intrinsics[t] if intrinsics is None else intrinsics)
        frame = render(t, view, k, small)
        layers = {name: enlarged(layer, size) for name, layer in vars(frame).items()}
        for name in ("flow_forward", "flow_backward"):
            layers[name] = layers[name] / scale[:2]
        rng = np.random.default_rng([world.seed, t, list(world.views).index(view), *size])
        grain = rng.normal(size=layers["rgb"].shape)
        layers["rgb"] = np.clip(np.round(layers["rgb"] + grain), 0, 255).astype(np.uint8)
        if film != "rendered":
            z = layers["z_depth"]
            sigma = 1.425e-3 * z**2 if film == "structured light" else 5e-3 * z
            holes = cv2.GaussianBlur(rng.normal(size=z.shape), (0, 0), 8)
            noisy = z + sigma * rng.normal(size=z.shape)
            layers["z_depth"] = np.where(holes > holes.std(), np.nan, noisy)
        return type(frame)(**layers)

    return shoot


def timed(convert: Callable[[Path, Path], None], warm: str, raw: str, out: str) -> None:
    """Convert one scene, then another one, and print the CPU seconds of the second."""
    convert(Path(warm), Path(out) / "warm")
    shutil.rmtree(Path(out) / "warm")
    start = time.process_time()
    convert(Path(raw), Path(out) / "measured")
    print(time.process_time() - start)


def child_datakit(case: str, warm: str, raw: str, out: str) -> None:
    """Convert with the engine, in this process."""
    from datakit.convert import run

    def convert(source: Path, target: Path) -> None:
        if run(CASES[case].dataset, source, target, workers=1, progress=False).exit_code:
            sys.exit(1)

    timed(convert, warm, raw, out)


def child_script(case: str, warm: str, raw: str, out: str) -> None:
    """Convert with the script."""
    import cv2

    cv2.setNumThreads(1)
    timed(CASES[case].script, warm, raw, out)


CHILDREN: dict[str, Callable[..., None]] = {
    "native": child_native,
    "datakit": child_datakit,
    "script": child_script,
}


# --- the run ------------------------------------------------------------------------------------------------------


def folder_mib(folder: Path) -> float:
    """Size of everything below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--frames", type=int, nargs=2, metavar=("SHORT", "LONG"), help="of every case")
    parser.add_argument("--size", metavar="WxH", help="of every case; default: that of its release")
    parser.add_argument("--rounds", type=int, default=2, help="the one with the least CPU time of so many")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child[0]](*options.child[1:])
        return
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    columns = (
        "case",
        "frames/CPU s",
        "script",
        "ratio",
        "peak MiB",
        "script",
        "MiB a frame",
        "native",
        "written",
    )
    print("".join(f"{name:>16}" for name in columns))
    for name in options.cases or CASES:
        size = tuple(map(int, options.size.split("x"))) if options.size else CASES[name].size
        frames = tuple(options.frames or CASES[name].frames)
        with tempfile.TemporaryDirectory() as folder:
            used, mib = run_case(name, Path(folder), frames, size, options.rounds)
        print_row(name, used, mib, frames)


def run_case(
    case: str, folder: Path, frames: tuple[int, int], size: tuple[int, int], rounds: int
) -> tuple[dict[tuple[str, int], Usage], dict[str, float]]:
    """Measure both programs on both lengths, interleaved; keep the round with the least CPU time.

    Returns:
        (program, frames) -> usage; and who -> MiB of the long scene's files.
    """
    for count in frames:
        # In a process of its own, for a process starts with the peak memory of the one that started it.
        measure("native", case, folder / f"raw{count}", count, *size)
    best: dict[tuple[str, int], Usage] = {}
    mib = {"native": folder_mib(folder / f"raw{frames[-1]}")}
    for _ in range(rounds):
        for program in ("datakit", "script"):
            for count in frames:
                out, warm = folder / "out", folder / f"raw{frames[0]}"
                keep_best(best, (program, count), measure(program, case, warm, folder / f"raw{count}", out))
                mib[program] = folder_mib(out / "measured")
                shutil.rmtree(out)
    return best, mib


def keep_best(best: dict[tuple[str, int], Usage], key: tuple[str, int], usage: Usage) -> None:
    """Keep the less disturbed of two rounds."""
    if key not in best or usage.cpu_s < best[key].cpu_s:
        best[key] = usage


def print_row(
    case: str, used: dict[tuple[str, int], Usage], mib: dict[str, float], frames: tuple[int, int]
) -> None:
    """Print what was measured, and the ratios."""
    short, long = frames
    rates = [long / used[name, long].cpu_s for name in ("datakit", "script")]
    growth = (used["datakit", long].peak_mib - used["datakit", short].peak_mib) / (long - short)
    cells = (
        case,
        *(f"{rate:.1f}" for rate in rates),
        f"{rates[0] / rates[1]:.2f}",
        *(
            f"{used[name, short].peak_mib:.0f} {used[name, long].peak_mib:.0f}"
            for name in ("datakit", "script")
        ),
        f"{growth:.3f}",
        f"{mib['native'] / long:.3f}",
        f"{mib['datakit'] / mib['native']:.2f} {mib['script'] / mib['native']:.2f}",
    )
    print("".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
