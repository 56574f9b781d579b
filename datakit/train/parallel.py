"""Ranks: who we are, how the model is spread over us, and sums over us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from datakit.errors import UsageError

from .config import ExecutionConfig


@dataclass(frozen=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: Which one this is.
        world_size: How many there are.
        device: Of this one.
        strategy: `none`, `ddp` or `fsdp`.
    """

    rank: int
    world_size: int
    device: torch.device
    strategy: str

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files that are written once."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the objects of all ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        out: list[Any] = [None] * self.world_size
        dist.all_gather_object(out, value)
        return out

    def from_first(self, value: Any) -> Any:
        """Return the first rank's object."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def ranks_of(config: ExecutionConfig) -> Iterator[Ranks]:
    """Join the other ranks of torchrun, if there are any, and leave them at the end.

    Raises:
        UsageError: A GPU is asked for and there is none, or a strategy does not fit the number of ranks.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    is_cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    if is_cuda and not torch.cuda.is_available():
        raise UsageError("There is no GPU", where="execution.device", found="cuda", expected="auto or cpu")
    strategy = config.strategy
    if strategy == "auto":
        strategy = "ddp" if world_size > 1 else "none"
    if world_size > 1 and strategy == "none":
        raise UsageError(
            "Several ranks need a strategy", where="execution.strategy", expected="auto, ddp or fsdp"
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if is_cuda else torch.device("cpu")
    if is_cuda:
        torch.cuda.set_device(device)
    joins = strategy != "none" and not dist.is_initialized()
    if joins:
        alone: dict[str, Any] = (
            {} if "WORLD_SIZE" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        )
        dist.init_process_group("nccl" if is_cuda else "gloo", **alone)
    try:
        yield Ranks(rank, world_size, device, strategy)
    finally:
        if joins:
            dist.destroy_process_group()


def spread(model: nn.Module, ranks: Ranks, config: ExecutionConfig) -> nn.Module:
    """Compile a model's parts and spread it over the ranks; its parameters keep their names.

    Args:
        model: On the ranks' device, the same weights on each. Changed in place.
        ranks: The ranks.
        config: Says what to compile and in which precision.

    Returns:
        What to call in a training step: the model itself, or a DDP wrapper around it.
    """
    blocks = [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]
    if config.compile == "blocks":
        for block in blocks:
            block.compile()
    if ranks.strategy == "fsdp":
        # torch's mesh defaults to all ranks. Gradients are summed in float32 whatever the products are in.
        kind = torch.bfloat16 if config.precision == "bf16" else None
        policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32 if kind else None)
        for block in blocks:
            fully_shard(block, mp_policy=policy)
        # By default the outermost weights stay gathered after a forward pass without a backward one: after a
        # validation the next step would use the averages that had been put in their place.
        fully_shard(model, mp_policy=MixedPrecisionPolicy(), reshard_after_forward=True)
    if config.compile == "model":
        model.compile()
    if ranks.strategy == "ddp":
        on_gpu = [ranks.device.index] if ranks.device.type == "cuda" else None
        # Its buffers are constants. Torch 2.13 has another name for what earlier ones call so.
        known = signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        sync: dict[str, Any] = {name: False}
        return DistributedDataParallel(model, device_ids=on_gpu, gradient_as_bucket_view=True, **sync)
    return model


def synchronising(module: nn.Module, is_last: bool) -> Any:
    """Let gradients be summed over the ranks in a step's last micro-batch only."""
    if isinstance(module, DistributedDataParallel):
        return nullcontext() if is_last else module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(is_last)
    return nullcontext()


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor; it shares the tensor's memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in CPU memory, gathered from all ranks, all of which must call this in the same order."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def put(tensor: Tensor, values: Tensor) -> None:
    """Fill a tensor, of which this rank may hold a part, from all of its values."""
    if isinstance(tensor, DTensor):
        spread_values = distribute_tensor(
            values.to(tensor.device, tensor.dtype), tensor.device_mesh, tensor.placements, src_data_rank=None
        )
        local(tensor).copy_(spread_values.to_local())
    else:
        tensor.copy_(values)
