"""One test for every trap of the format and of the releases, each of which fails without its handling."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

import converters.blendedmvs as blendedmvs
from converters.blendedmvs.pfm import parse_pfm, z_from_pfm
from converters.blendedmvs.projects import RELEASES, VALIDATION, official_split, release_of
from converters.blendedmvs.texts import intrinsics_of, parse_cam, parse_list, parse_pairs, pose_of
from converters.blendedmvs.write import write_release
from datakit.errors import ConventionError, FormatError, LayoutError, UsageError

from .sets import FRAMES, PARAMS, SIZE, drain, edit, only_scene, open_set, small_world, write_set

NAME = "x"
E_ROWS = "extrinsic\n0 -1 0 1 \n1 0 0 2 \n0 0 1 3 \n0 0 0 1 \n\nintrinsic\n50 0 33.5 \n0 52 23 \n0 0 1 \n\n"


def cam(depth: str = "1 0.5 4 9") -> bytes:
    return (E_ROWS + depth + "\n").encode()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_set(tmp_path / "raw", "low-res", small_world(2, num_frames=5, size=(32, 24)))


# --- section 1 and 2: releases and trees ------------------------------------------------------------------------------


def test_trap_split_archives_are_named_not_unpacked(tmp_path: Path) -> None:
    for part in ("z01", "z02", "zip"):
        (tmp_path / f"BlendedMVS2.{part}").touch()
    report = blendedmvs.probe(tmp_path)
    assert report.variant == "BlendedMVS++, archive not unpacked"
    (problem,) = report.problems
    assert problem.severity == "error" and "3 are here" in problem.what and "missing: z03" in problem.what
    assert "zip -s 0" in problem.mend
    with pytest.raises(LayoutError, match="not unpacked"):
        list(blendedmvs.scenes(tmp_path, PARAMS))


def test_trap_whole_archive_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "BlendedMVS.zip").touch()
    assert blendedmvs.probe(tmp_path).problems[0].what == "the archive of BlendedMVS is not unpacked"


def test_trap_archives_beside_scenes_only_warn(raw: Path) -> None:
    for part in [*(f"z{n:02d}" for n in range(1, 43)), "zip"]:
        (raw / f"BlendedMVS1.{part}").touch()
    (problem,) = blendedmvs.probe(raw).problems
    assert problem.severity == "warning" and "43 are here" in problem.what and "missing" not in problem.what
    assert drain(raw) == 5


@pytest.mark.parametrize(
    ("size", "word"), [((768, 576), "low-res"), ((2048, 1536), "high-res"), (SIZE, "64x48")]
)
def test_trap_resolution_is_named_by_the_images(tmp_path: Path, size: tuple[int, int], word: str) -> None:
    root = write_set(tmp_path, "plus", small_world(1, num_frames=1, size=(16, 12)))
    folder = only_scene(root)
    image = simplejpeg.encode_jpeg(np.zeros((size[1], size[0], 3), np.uint8), quality=10)
    (folder / "blended_images" / "00000000.jpg").write_bytes(image)
    assert blendedmvs.probe(root).variant == f"BlendedMVS+ {word} (1)"


def test_trap_ids_of_small_integers() -> None:
    assert release_of("0" * 24) == release_of(f"{0x1A:024x}") == "BlendedMVS+"
    assert release_of(f"{0x10:024x}") == release_of(f"{0x1D:024x}") == "BlendedMVS++"
    assert {release_of(f"{n:024x}") for n in (0x13, 0x14, 0x1C, 0x1E)} == {"unlisted"}


def test_trap_releases_are_disjoint_and_whole() -> None:
    assert {name: len(ids) for name, ids in RELEASES.items()} == {
        "BlendedMVS": 113,
        "BlendedMVS+": 194,
        "BlendedMVS++": 195,
    }
    assert len(frozenset().union(*RELEASES.values())) == 502
    assert len(VALIDATION) == 7 and RELEASES["BlendedMVS"] >= VALIDATION
    assert official_split("5b7a3890fc8fcf6781e2593a") == "val"
    assert official_split("5bff3c5cfe0ea555e6bcbf3a") == "train" and official_split("my_scene") == "none"


def test_trap_validation_list_has_crlf(tmp_path: Path) -> None:
    assert parse_list(b"aa\r\nbb\r\n", NAME) == {"aa", "bb"}
    root = write_set(tmp_path, "low-res", *(small_world(s, num_frames=1, size=(16, 12)) for s in (1, 2)))
    assert b"\r\n" in (root / "validation_list.txt").read_bytes()
    assert [ref.split for ref in blendedmvs.scenes(root, PARAMS)] == ["val", "train"]


def test_trap_list_files_beside_the_scenes_decide(raw: Path) -> None:
    (ref,) = blendedmvs.scenes(raw, PARAMS)
    assert ref.split == "train"
    (raw / "validation_list.txt").write_bytes(f"{ref.id}\r\n".encode())
    assert next(iter(blendedmvs.scenes(raw, PARAMS))).split == "val"  # though a training list names it too


def test_trap_list_files_above_the_root_are_not_read(tmp_path: Path, raw: Path) -> None:
    folder = only_scene(raw)
    (tmp_path / "validation_list.txt").write_text(folder.name)
    (raw / "validation_list.txt").write_text(folder.name)
    assert next(iter(blendedmvs.scenes(folder, PARAMS))).split == "train"


def test_trap_pair_file_is_inside_cams(raw: Path) -> None:
    folder = only_scene(raw)
    shutil.move(folder / "cams" / "pair.txt", folder / "pair.txt")
    (ref,) = blendedmvs.scenes(raw, PARAMS)
    assert blendedmvs.read(raw, ref, PARAMS).record.metadata["covisibility"] is None
    assert "no covisibility" in blendedmvs.probe(raw).problems[0].what


def test_trap_same_scene_in_both_resolutions(tmp_path: Path) -> None:
    for form in ("low-res", "high-res"):
        write_set(tmp_path / form, form, small_world(1, num_frames=1, size=(12, 9)))
    with pytest.raises(LayoutError, match="twice"):
        list(blendedmvs.scenes(tmp_path, PARAMS))


def test_trap_high_res_has_intrinsics_of_its_own(tmp_path: Path) -> None:
    world = small_world(1, num_frames=1, size=(24, 18))
    with open_set(write_set(tmp_path / "r", "high-res", world), tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.size == (64, 48)
        assert np.allclose(view.intrinsics[0, 0, 0], world.views["camera"].intrinsics[0, 0, 0] * 8 / 3)


def test_trap_photo_numbers_have_gaps(tmp_path: Path) -> None:
    with open_set(write_set(tmp_path / "r"), tmp_path / "o") as scene:
        assert scene.views["camera"].frame_names[3] == "00000004"
        assert scene.views["camera"].num_frames == FRAMES


def test_trap_masked_images_are_another_picture_of_the_same_frame(tmp_path: Path) -> None:
    root = write_set(
        tmp_path / "r", "low-res", small_world(4, background="open", camera="rotating", num_frames=2)
    )
    params = blendedmvs.Params(images="masked")
    folder = only_scene(root)
    assert drain(root) == 2  # and never four frames
    with open_set(root, tmp_path / "o", params) as scene:
        view = scene.views["camera"]
        assert view.encoded("rgb", 0) == (folder / "blended_images" / "00000000_masked.jpg").read_bytes()
        assert scene.provenance["params"] == {"images": "masked"}
        # JPEG noise: black is no mask, the depth is.
        assert np.isnan(view.z_depth(1)).any()


# --- section 3: cameras -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "want"),
    [
        ("1 0.5", {"min": 1, "interval": 0.5, "num": None, "max": None}),
        ("1 0.5 4", {"min": 1, "interval": 0.5, "num": 4, "max": 3}),  # min + interval * num, not num - 1
        ("1 0.5 4 9", {"min": 1, "interval": 0.5, "num": 4, "max": 9}),
        ("0.0 5e-1 128.000000 9", {"min": 0, "interval": 0.5, "num": 128, "max": 9}),
        ("-1 nan 4 inf", {"min": -1, "interval": None, "num": 4, "max": None}),
    ],
    ids=["29 tokens", "30 tokens", "31 tokens", "float num", "odd"],
)
def test_trap_token_counts(depth: str, want: dict[str, float | None]) -> None:
    assert parse_cam(cam(depth), NAME).sweep == want


@pytest.mark.parametrize("depth", ["", "1", "1 2 3 4 5"])
def test_trap_other_token_counts_are_refused(depth: str) -> None:
    with pytest.raises(FormatError, match="Not a camera file"):
        parse_cam(cam(depth), NAME)


def test_trap_blanks_and_exponents() -> None:
    text = E_ROWS.replace("50 0", "5.0E+01\t0").replace("\n", " \r\n") + " 1 2 \n\n"
    camera = parse_cam(text.encode(), NAME)
    assert camera.intrinsics.tolist() == [[50, 0, 33.5], [0, 52, 23], [0, 0, 1]]
    assert camera.cam_from_world[:3, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize("token", ["1_0", "0x10", "１", "1,5", "one"])
def test_trap_numbers_that_only_python_reads(token: str) -> None:
    with pytest.raises(FormatError):
        parse_cam(cam(f"{token} 2 3"), NAME)


def test_trap_extrinsic_is_world_to_camera() -> None:
    pose = pose_of(parse_cam(cam(), NAME), NAME)
    assert pose is not None
    # Camera centre -R^T t of R = turn by 90 degrees, t = (1, 2, 3).
    assert np.allclose(pose[:3, 3], [-2, 1, -3]) and np.allclose(pose[:3, 0], [0, -1, 0])


def test_trap_corner_origin_is_kept() -> None:
    assert intrinsics_of(parse_cam(cam(), NAME), NAME)[:2, 2].tolist() == [33.5, 23]


def test_trap_skew_is_refused() -> None:
    skewed = cam().replace(b"50 0 33.5", b"50 0.01 33.5")
    with pytest.raises(ConventionError, match="skew"):
        intrinsics_of(parse_cam(skewed, NAME), NAME)


@pytest.mark.parametrize("bad", [b"nan 0 33.5", b"-50 0 33.5", b"50 0 inf"])
def test_trap_unusable_intrinsics_are_refused(bad: bytes) -> None:
    with pytest.raises(ConventionError):
        intrinsics_of(parse_cam(cam().replace(b"50 0 33.5", bad), NAME), NAME)


def test_trap_rounded_rotations_become_exact() -> None:
    rows = b"0.8660254 0.5000000 0 1 \n-0.5000001 0.8660254 0 2"
    camera = parse_cam(cam().replace(b"0 -1 0 1 \n1 0 0 2", rows), NAME)
    pose = pose_of(camera, NAME)
    assert pose is not None and np.abs(pose[:3, :3].T @ pose[:3, :3] - np.eye(3)).max() < 1e-14


@pytest.mark.parametrize("row", [b"0 1 0 1", b"0 -1.1 0 1", b"0 0 0 1"], ids=["mirror", "scaled", "flat"])
def test_trap_poses_that_are_not_rigid_are_refused(row: bytes) -> None:
    with pytest.raises(ConventionError, match="not rigid"):
        pose_of(parse_cam(cam().replace(b"0 -1 0 1", row), NAME), NAME)


def test_trap_pose_that_is_not_finite_is_unknown(raw: Path, tmp_path: Path) -> None:
    path = only_scene(raw) / "cams" / "00000001_cam.txt"
    words = path.read_text().split()
    words[1] = "nan"
    path.write_text(" ".join(words))
    with open_set(raw, tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.pose_is_known.tolist() == [True, False, True, True, True]
        assert np.isnan(view.world_from_cam[1]).all()
    assert "1 poses are not finite" in blendedmvs.probe(raw).problems[0].what


def test_trap_depth_range_masks_nothing(tmp_path: Path) -> None:
    """The range is the 1 % to 99 % quantile of depth, 0 at photo 4; what lies outside is kept."""
    with open_set(write_set(tmp_path / "r"), tmp_path / "o") as scene:
        view, sweep = scene.views["camera"], scene.metadata["depth_sweep"]
        below = above = 0
        for t in range(FRAMES):
            z = view.z_depth(t)
            assert z is not None
            below += int((z < sweep[t]["min"]).sum())
            above += int((z > sweep[t]["max"]).sum()) if sweep[t]["max"] else 0
        assert below > 20 and above > 20 and sweep[4]["min"] == 0


# --- section 4: pairs -------------------------------------------------------------------------------------------------


def test_trap_pairs_of_any_length_with_trailing_blanks() -> None:
    text = b"3\n0\n2 1 50.5 9 1e1 \n1\n0  \n9\n1 0 3\n"
    assert parse_pairs(text, NAME) == {0: [(1, 50.5), (9, 10.0)], 1: [], 9: [(0, 3.0)]}
    assert parse_pairs(b"1\n\n0\n0\n \n", NAME) == {0: []}  # empty lines


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x\n",
        b"2\n0\n0\n",
        b"1\n0\n2 1 50\n",
        b"1\n0\n1 1 50 2\n",
        b"2\n0\n0\n0\n0\n",
        b"1\n0\n1 1 nan\n",
        b"1\n-1\n0\n",
        b"1 1\n0\n0\n",
        b"\xff",
    ],
)
def test_trap_damaged_pairs_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse_pairs(text, NAME)


def test_trap_covisibility_is_by_frame_not_by_photo_number(tmp_path: Path) -> None:
    with open_set(write_set(tmp_path / "r"), tmp_path / "o") as scene:
        covisibility = scene.metadata["covisibility"]
    rows = covisibility["rows"]
    assert [len(row) for row in rows] == [5, 5, 3, 0, 5, 5]
    assert rows[5][0] == [4, 50.0]  # photo 9's nearest is photo 5, which is frame 4
    assert covisibility["rows_missing"] == covisibility["ids_without_photo"] == 0


def test_trap_pairs_of_photos_that_are_not_there(raw: Path) -> None:
    folder = only_scene(raw)
    for path in folder.rglob("00000005*"):
        path.unlink()
    (ref,) = blendedmvs.scenes(raw, PARAMS)
    covisibility = blendedmvs.read(raw, ref, PARAMS).record.metadata["covisibility"]
    assert covisibility["ids_without_photo"] == 1 and [len(r) for r in covisibility["rows"]] == [3, 3, 3, 0]
    assert "1 ids have no photo" in blendedmvs.probe(raw).problems[0].what


# --- section 5: depth -------------------------------------------------------------------------------------------------

PIXELS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)  # top row first


@pytest.mark.parametrize(
    ("scale", "order"), [(b"-1.000000", "<f4"), (b"1.0", ">f4"), (b"-1e0", "<f4"), (b"+1", ">f4")]
)
def test_trap_both_byte_orders_bottom_row_first(scale: bytes, order: str) -> None:
    data = b"Pf\n3 2\n" + scale + b"\n" + PIXELS[::-1].astype(order).tobytes()
    out = parse_pfm(data, NAME)
    assert np.array_equal(out, PIXELS) and out.dtype == np.float32


def test_trap_header_bytes_of_the_specification() -> None:
    head = bytes.fromhex("50 66 0a 36 34 20 34 38 0a 2d 31 2e 30 30 30 30 30 30 0a")
    assert parse_pfm(head + bytes(12288), NAME).shape == (48, 64)


def test_trap_magnitude_of_the_scale_is_not_applied() -> None:
    data = b"Pf\n3 2\n-7.5\n" + PIXELS[::-1].tobytes()
    assert np.array_equal(parse_pfm(data, NAME), PIXELS)


@pytest.mark.parametrize(
    "head",
    [
        b"PF\n3 2\n-1\n",
        b"Pf\n3  2\n-1\n",
        b"Pf\n3 2 \n-1\n",
        b"Pf\n3 2\n0\n",
        b"Pf\n3 2\nnan\n",
        b"Pf\n3 2\n1e999\n",
        b"Pf\n3 2\n1.0.0\n",
        b"Pf\n0 2\n-1\n",
        b"Pf\n999999 999999\n-1\n",
        b"Pf\n3 3\n-1\n",
        b"Pf\n3 1\n-1\n",
        b"P6\n3 2\n-1\n",
    ],
)
def test_trap_other_headers_are_refused(head: bytes) -> None:
    with pytest.raises(FormatError):
        parse_pfm(head + PIXELS.tobytes(), NAME)


def test_trap_zero_nan_inf_and_negative_are_unknown() -> None:
    stored = np.array([[0.0, -0.0, np.nan, np.inf, -np.inf, -1, 3.4e38, 1e-30]], np.float32)
    z = z_from_pfm(stored)
    assert np.isnan(z[0, :6]).all() and z[0, 6:].tolist() == stored[0, 6:].tolist()


def test_trap_infinity_does_not_become_the_largest_float(tmp_path: Path) -> None:
    with open_set(write_set(tmp_path / "r"), tmp_path / "o") as scene:
        z = scene.views["camera"].z_depth(0)
        assert z is not None and np.isnan(z[0, :3]).all() and np.nanmax(z) < 100


def test_trap_whole_map_is_empty(tmp_path: Path) -> None:
    write_release([small_world()], tmp_path / "r", "low-res", empty_maps=frozenset({4}))
    with open_set(tmp_path / "r", tmp_path / "o") as scene:
        view = scene.views["camera"]
        assert view.num_frames == FRAMES  # the photo and its pose stay
        assert np.isnan(view.z_depth(4)).all() and np.isfinite(view.z_depth(3)).any()


def test_trap_far_outliers_are_kept(raw: Path, tmp_path: Path) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000002.pfm"
    stored = parse_pfm(path.read_bytes(), NAME).copy()
    stored[5, 7] = 1e6
    path.write_bytes(b"Pf\n32 24\n-1.000000\n" + stored[::-1].tobytes())
    with open_set(raw, tmp_path / "o") as scene:
        z = scene.views["camera"].z_depth(2)
        assert z is not None and z[5, 7] == np.float32(1e6)


def test_trap_depth_of_another_size_than_the_photo(raw: Path) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000002.pfm"
    path.write_bytes(b"Pf\n24 32\n-1.000000\n" + bytes(4 * 32 * 24))
    with pytest.raises(FormatError, match="another size"):
        drain(raw)


@pytest.mark.parametrize("cut", [-1, 3], ids=["short", "long"])
def test_trap_truncated_depth(raw: Path, cut: int) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000001.pfm"
    data = path.read_bytes()
    path.write_bytes(data[:cut] if cut < 0 else data + bytes(cut))
    with pytest.raises(FormatError, match="truncated"):
        drain(raw)


def test_trap_truncated_depth_is_found_by_the_doctor(raw: Path) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000001.pfm"
    path.write_bytes(path.read_bytes()[:1000])
    (problem,) = blendedmvs.probe(raw).problems
    assert problem.severity == "error" and problem.where.endswith("00000001.pfm")


# --- untrusted trees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone", ["cams/00000001_cam.txt", "rendered_depth_maps/00000001.pfm", "blended_images/00000001.jpg"]
)
def test_missing_file_is_named(raw: Path, gone: str) -> None:
    (only_scene(raw) / gone).unlink()
    with pytest.raises(LayoutError, match="00000001"):
        drain(raw)
    assert blendedmvs.probe(raw).problems[0].severity == "error"


def test_missing_folder_is_named(raw: Path) -> None:
    shutil.rmtree(only_scene(raw) / "rendered_depth_maps")
    with pytest.raises(LayoutError, match="rendered_depth_maps"):
        drain(raw)


@pytest.mark.parametrize(
    "image",
    [
        b"\xff\xd8\xff",
        b"GIF89a",
        simplejpeg.encode_jpeg(np.zeros((24, 32, 1), np.uint8), colorspace="GRAY"),
        simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8)),
    ],
    ids=["truncated", "gif", "grey", "small"],
)
def test_damaged_photo_is_refused(raw: Path, image: bytes) -> None:
    (only_scene(raw) / "blended_images" / "00000002.jpg").write_bytes(image)
    with pytest.raises(FormatError):
        drain(raw)


def test_link_out_of_the_root_is_refused(raw: Path, tmp_path: Path) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000001.pfm"
    shutil.move(path, tmp_path / "outside.pfm")
    path.symlink_to(tmp_path / "outside.pfm")
    with pytest.raises(LayoutError, match="leaves"):
        drain(raw)


def test_dangling_link_is_a_layout_error(raw: Path) -> None:
    path = only_scene(raw) / "rendered_depth_maps" / "00000001.pfm"
    path.unlink()
    path.symlink_to("nothing.pfm")
    with pytest.raises(LayoutError):
        drain(raw)


def test_fingerprint_follows_the_files(raw: Path) -> None:
    before = next(iter(blendedmvs.scenes(raw, PARAMS)))
    edit(only_scene(raw) / "cams" / "pair.txt", lambda s: s + "\n")
    after = next(iter(blendedmvs.scenes(raw, PARAMS)))
    assert before.fingerprint != after.fingerprint and before.id == after.id


def test_probe_never_raises(tmp_path: Path, raw: Path) -> None:
    assert blendedmvs.probe(tmp_path / "nothing").problems[0].severity == "error"
    (tmp_path / "empty").mkdir()
    assert blendedmvs.probe(tmp_path / "empty").variant == "none"
    (only_scene(raw) / "cams" / "00000000_cam.txt").write_bytes(b"\xff")
    assert "damaged" in blendedmvs.probe(raw).variant or blendedmvs.probe(raw).problems


def test_wrong_use_is_refused(raw: Path) -> None:
    (ref,) = blendedmvs.scenes(raw, PARAMS)
    with pytest.raises(UsageError):
        blendedmvs.read(raw, replace(ref, location={}), PARAMS)
    with pytest.raises(LayoutError):
        list(blendedmvs.scenes(raw / "nothing", PARAMS))


def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    """A frame is read when it is asked for: nothing of the later ones has been touched before."""
    root = write_set(tmp_path, "low-res", small_world(1, num_frames=3, size=(16, 12)))
    (ref,) = blendedmvs.scenes(root, PARAMS)
    stream = blendedmvs.read(root, ref, PARAMS)
    assert not any(source.path.endswith(".pfm") for source in stream.sources)
    next(stream.frames)
    assert sum(source.path.endswith(".pfm") for source in stream.sources) == 1
