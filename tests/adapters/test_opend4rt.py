"""The adapter's output in OpenD4RT's own terms: fields, shapes, ranges, and its geometry worked through its way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datakit.adapters.opend4rt import to_opend4rt

B, T, N, H, W = 2, 4, 50, 32, 32
RNG = np.random.default_rng(0)


@pytest.fixture
def batch() -> dict[str, Any]:
    """Points of a static world in front of a sliding camera, with the truth computed here."""
    K = np.tile(np.array([[30.0, 0, 15.0], [0, 28.0, 17.0], [0, 0, 1]]), (B, T, 1, 1))
    pose = np.tile(np.eye(4), (B, T, 1, 1))
    pose[:, :, 0, 3] = np.arange(T) * 0.3
    uv_px, z = RNG.uniform(2, 30, (B, N, 2)), RNG.uniform(3, 6, (B, N))
    t_src, t_tgt, t_cam = (RNG.integers(0, T - 1, (B, N)) for _ in range(3))
    rows = np.arange(B)[:, None]
    rays = np.concatenate([(uv_px - [15.0, 17.0]) / [30.0, 28.0], np.ones((B, N, 1))], axis=-1)
    world = rays * z[..., None] + pose[rows, t_src][..., :3, 3]
    xyz = world - pose[rows, t_cam][..., :3, 3]
    seen = world - pose[rows, t_tgt][..., :3, 3]
    uv_tgt = seen[..., :2] / seen[..., 2:] * [30.0, 28.0] + [15.0, 17.0]
    known = np.ones((B, N), bool)
    known[:, :5] = False
    xyz[:, :5] = np.nan
    in_cam = xyz[..., :2] / xyz[..., 2:] * [30.0, 28.0] + [15.0, 17.0]
    frame_mask = np.ones((B, T), bool)
    frame_mask[:, -1] = False
    return {
        "video": RNG.integers(0, 256, (B, T, 3, H, W), dtype=np.uint8),
        "frame_mask": frame_mask,
        "times": np.zeros((B, T)),
        "aspect_ratio": np.full(B, 1.5, np.float32),
        "query": {"uv": uv_px / [W, H], "t_src": t_src, "t_tgt": t_tgt, "t_cam": t_cam,
                  "patch": np.zeros((B, N, 3, 9, 9), np.uint8), "kind": np.tile(np.arange(N) % 3, (B, 1))},
        "target": {"xyz": xyz, "uv": in_cam / [W, H], "visible": RNG.random((B, N)) < 0.7,
                   "displacement": np.where(known[..., None], np.zeros(3), np.nan),
                   "normal": np.full((B, N, 3), np.nan)},
        "mask": {"xyz": known, "uv": known, "visible": known, "displacement": known, "normal": ~known & False},
        "camera": {"intrinsics": K, "world_from_cam": pose, "pose_is_known": np.ones((B, T), bool)},
        "meta": {"key": ["a", "b"], "dataset": ["x", "y"]},
        "_uv_tgt": uv_tgt,
    }  # fmt: skip


def test_fields_shapes_types_and_ranges(batch: dict[str, Any]) -> None:
    out = to_opend4rt(batch)
    expected = {
        "video": ((B, T, 3, H, W), "float32"),
        "aspect_ratio": ((B, 1), "float32"),
        "query": {"u": ((B, N), "float32"), "v": ((B, N), "float32"), "t_src": ((B, N), "int64"),
                  "t_tgt": ((B, N), "int64"), "t_cam": ((B, N), "int64")},
        "query_stats": {"is_hard_query": ((B, N), "bool")},
        "target": {"xyz_3d": ((B, N, 3), "float32"), "uv_2d": ((B, N, 2), "float32"),
                   "visibility": ((B, N), "float32"), "displacement": ((B, N, 3), "float32"),
                   "normal": ((B, N, 3), "float32")},
        "mask": {name: ((B, N), "bool") for name in ("xyz_3d", "uv_2d", "visibility", "displacement", "normal")},
        "camera": {"K": ((B, T, 3, 3), "float32"), "T_wc": ((B, T, 4, 4), "float32"),
                   "camera_valid": ((B, T), "bool"), "valid": ((B, T), "bool")},
    }  # fmt: skip

    def shapes(value: Any) -> Any:
        return (
            {k: shapes(v) for k, v in value.items()}
            if isinstance(value, dict)
            else (value.shape, str(value.dtype))
        )

    assert out.pop("meta") is batch["meta"]
    assert shapes(out) == expected
    assert out["video"].min() >= 0 and out["video"].max() <= 1
    assert set(np.unique(out["target"]["visibility"])) <= {0.0, 1.0}
    for name, value in out["target"].items():
        assert np.isfinite(value).all() and not value[~out["mask"][name]].any(), name
    for name in ("u", "v"):
        assert out["query"][name].min() >= 0 and out["query"][name].max() <= 1
    assert not out["camera"]["camera_valid"][:, -1].any() and out["camera"]["camera_valid"][:, :-1].all()
    assert (out["query_stats"]["is_hard_query"] == (batch["query"]["kind"] > 0)).all()


def test_its_own_way_from_a_query_to_uv_2d_leads_to_the_same_place(batch: dict[str, Any]) -> None:
    """Integer pixel centres, (W - 1), K as it is, T_wc, and the image of t_tgt: as its loss reprojects."""
    out = to_opend4rt(batch)
    rows = np.arange(B)[:, None]
    K, pose = out["camera"]["K"].astype(float), out["camera"]["T_wc"].astype(float)
    world = np.einsum("bnij,bnj->bni", pose[rows, out["query"]["t_cam"]],
                      np.concatenate([out["target"]["xyz_3d"], np.ones((B, N, 1))], axis=-1))  # fmt: skip
    in_tgt = np.einsum("bnij,bnj->bni", np.linalg.inv(pose[rows, out["query"]["t_tgt"]]), world)[..., :3]
    uvw = np.einsum("bnij,bnj->bni", K[rows, out["query"]["t_tgt"]], in_tgt)
    with np.errstate(invalid="ignore", divide="ignore"):  # masked points are zeros
        uv = uvw[..., :2] / uvw[..., 2:] / [W - 1, H - 1]
    known = out["mask"]["uv_2d"] & ((uv >= 0) & (uv <= 1)).all(axis=-1)
    assert known.mean() > 0.5
    assert np.abs(uv - out["target"]["uv_2d"])[known].max() < 1e-4
    assert np.abs(out["target"]["uv_2d"] * (W - 1) + 0.5 - batch["_uv_tgt"])[known].max() < 1e-3
    u_px = out["query"]["u"] * (W - 1)
    assert np.abs(u_px + 0.5 - batch["query"]["uv"][..., 0] * W).max() < 1e-4


def test_uv_2d_is_known_for_occluded_points_unless_asked_otherwise(batch: dict[str, Any]) -> None:
    hidden = batch["mask"]["visible"] & ~batch["target"]["visible"]
    assert (to_opend4rt(batch)["mask"]["uv_2d"] & hidden).any()
    strict = to_opend4rt(batch, uv_when_visible_only=True)
    assert strict["mask"]["uv_2d"].any() and not (strict["mask"]["uv_2d"] & hidden).any()
    assert not (to_opend4rt(batch)["mask"]["uv_2d"] & ~batch["mask"]["xyz"]).any()


def test_the_batch_itself_is_left_alone(batch: dict[str, Any]) -> None:
    before = {name: value.copy() for name, value in batch["mask"].items()}
    to_opend4rt(batch, uv_when_visible_only=True)
    assert all((batch["mask"][name] == value).all() for name, value in before.items())
