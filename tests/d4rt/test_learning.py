"""Model and loss together: some steps on one clip teach what can be asked of it elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from datakit.d4rt import D4RT, composite_loss
from tests.d4rt.samples import SMALL, make_query, make_video


def slanted_plane(seed: int) -> dict[str, Any]:
    """Queries on the plane z = 2 + u, seen by a camera that stands still, with a focal length of one image width."""
    query = make_query(2, 128, seed=seed)
    u, v = query["uv"].unbind(-1)
    z = 2 + u
    xyz = torch.stack([(u - 0.5) * z, (v - 0.5) * z, z], dim=-1)
    normal = torch.tensor([1.0, 0.0, -1.5]) / 3.25**0.5
    target = {
        "xyz": xyz,
        "uv": query["uv"],
        "visible": torch.ones(2, 128, dtype=torch.bool),
        "displacement": torch.zeros_like(xyz),
        "normal": normal.expand_as(xyz),
    }
    mask = {name: torch.ones(2, 128, dtype=torch.bool) for name in target}
    return {"query": query, "target": target, "mask": mask}


def depth_error(z: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean relative error after one median scale for each clip."""
    scale = truth.median(dim=1, keepdim=True).values / z.median(dim=1, keepdim=True).values
    return ((z * scale - truth).abs() / truth).mean().item()


def test_steps_on_one_clip_answer_new_queries_about_it():
    torch.manual_seed(0)
    model, video, ratio = D4RT(SMALL), make_video(), torch.ones(2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(60):
        batch = slanted_plane(step)
        total, _, _ = composite_loss(model(video, None, ratio, batch["query"]), batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    asked = slanted_plane(1000)
    with torch.no_grad():
        answer = model.eval()(video, None, ratio, asked["query"])
    truth = asked["target"]["xyz"][..., 2]
    constant = depth_error(torch.ones_like(truth), truth)
    found = depth_error(answer["xyz"][..., 2], truth)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; depth error {found:.3f}, constant depth {constant:.3f}")
    assert losses[-1] < 0.3 * losses[0]
    assert found < 0.5 * constant
    assert (answer["uv"] - asked["target"]["uv"]).abs().mean() < 0.1  # the middle of the image: 0.25
