"""Answers of a D4RT model: a clip is encoded once, its keys and values kept, queries decoded in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datakit.d4rt import D4RT, KeysValues, Memory
from datakit.d4rt.load import LoadedModel, load_model
from datakit.d4rt.query import gather_patches
from datakit.errors import UsageError
from datakit.stream.images import resize

from .answers import Answer, ClipFrames, ClipInfo, checked_query

Precision = Literal["fp32", "bf16"]
Outputs = dict[str, Tensor]
#: What is left after whole chunks is decoded by compiled code in chunks that are so many times smaller.
_SMALL = 8


class ModelAnswers:
    """An `Answerer` over a model.

    Args:
        model: A model, or one with its provenance; it is moved to the device and put in evaluation mode.
        device: `auto` takes a GPU if there is one.
        precision: Of the matrix products; the head that gives points is float32 in both.
        chunk: Queries that are decoded at a time.
        compile: Compile the decoding of a chunk; the first call then takes a while.
        keep_keys_values: Project the memory to keys and values once a clip, not once a chunk. False is for
            measuring what that is worth.

    Raises:
        UsageError: An option is unknown, or there is no such device.
    """

    def __init__(
        self,
        model: D4RT | LoadedModel,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        chunk: int = 4096,
        compile: bool = False,
        keep_keys_values: bool = True,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise UsageError("Unknown precision", expected="fp32 or bf16", found=precision)
        if chunk < 1:
            raise UsageError("chunk must be at least 1", found=chunk)
        self.weights = model.weights if isinstance(model, LoadedModel) else None
        self.device, self.precision, self.chunk = _device(device), precision, chunk
        self.is_compiled, self.keep_keys_values = compile, keep_keys_values
        self.model = (model.model if isinstance(model, LoadedModel) else model).to(self.device).eval()
        # A clip of another length compiles once more.
        self._decode = torch.compile(self._decode_chunk, dynamic=False) if compile else self._decode_chunk

    @classmethod
    def load(cls, source: str | Path, **options: Any) -> ModelAnswers:
        """Load a model from a run, a checkpoint or a file of weights; options as of the class."""
        return cls(load_model(source), **options)

    @property
    def max_frames(self) -> int:
        """Frames of the longest clip: the length of the model's time tables."""
        return self.model.num_frames

    def open(self, clip: ClipFrames) -> ModelClip:
        """Encode a clip.

        The encoder sees squares, resized as in training (`datakit.stream.images.resize`), and the frames' aspect
        ratio; colour patches come from the frames as they are.

        Raises:
            UsageError: The clip is longer than the model's.
        """
        count, size = len(clip.rgb), self.model.image_size
        if count > self.max_frames:
            raise UsageError(
                "The clip is longer than the model's", expected=f"1 to {self.max_frames}", found=count
            )
        squares = np.stack([resize(frame, size) for frame in clip.rgb])
        with torch.inference_mode(), self.arithmetic():
            video = self._on_device(squares)
            ratio = torch.tensor([clip.info.aspect_ratio], dtype=torch.float32, device=self.device)
            # A short clip is a short sequence: the encoder pads half a tubelet itself, and no mask is needed.
            memory: Memory | KeysValues = self.model.encode(video, None, ratio, validate=False)
            if self.keep_keys_values and isinstance(memory, Memory):
                memory = self.model.keys_values(memory)
            return ModelClip(self, clip.info, memory, self._on_device(clip.rgb))

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context in which matrix products have the precision asked for."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def describe(self) -> Mapping[str, Any]:
        """Return what answers follow from."""
        weights = self.weights
        return {
            "name": "D4RT",
            "config": asdict(self.model.config),
            "weights": None if weights is None else weights.kind,
            "weights_sha256": None if weights is None else weights.sha256,
            "step": None if weights is None else weights.step,
            "device": self.device.type,
            "precision": self.precision,
            "chunk": self.chunk,
            "compile": self.is_compiled,
            "keep_keys_values": self.keep_keys_values,
        }

    def answer(self, memory: Memory | KeysValues, frames: Tensor, queries: tuple[Any, ...]) -> Answer:
        """Decode checked queries in chunks.

        Args:
            memory: Of the clip.
            frames: (1, T, 3, H, W) uint8 on the device.
            queries: uv (N, 2) and three times (N,), arrays.
        """
        uv, *times = queries
        count = len(uv)
        # Neighbours in memory are read together: patches of a chunk come from few frames.
        order = np.argsort(times[0], kind="stable")
        sizes = self._sizes(count)
        rows = np.concatenate([order, np.zeros(sum(sizes) - count, np.int64)])
        places = torch.from_numpy(uv[rows].astype(np.float32)).to(self.device)
        moments = [torch.from_numpy(t[rows]).to(self.device) for t in times]
        parts, at = [], 0
        with torch.inference_mode(), self.arithmetic():
            for size in sizes:
                # Cut flat and then made a batch of one, so that strides, too, follow from the size alone.
                place, t_src, t_tgt, t_cam = (each[at : at + size][None] for each in (places, *moments))
                patch = gather_patches(frames, place, t_src, self.model.query_patch)
                parts.append(self._packed(self._decode(memory, place, t_src, t_tgt, t_cam, patch)))
                at += size
            numbers = torch.cat(parts)[:count].cpu().numpy() if parts else np.zeros((0, 13), np.float32)
        found = np.empty_like(numbers)
        found[order] = numbers
        return Answer(found[:, :3], found[:, 3:5], found[:, 5], found[:, 6:9], found[:, 9:12], found[:, 12])

    def _sizes(self, count: int) -> list[int]:
        """Return the sizes of the chunks for so many queries.

        Compiled code is tied to sizes, so there are two of them and the last chunk is filled up; else none is.
        """
        whole, rest = divmod(count, self.chunk)
        sizes = [self.chunk] * whole
        if not self.is_compiled:
            return sizes + [rest] * (rest > 0)
        small = max(self.chunk // _SMALL, 1)
        return sizes + [small] * -(-rest // small)

    def _decode_chunk(
        self,
        memory: Memory | KeysValues,
        uv: Tensor,
        t_src: Tensor,
        t_tgt: Tensor,
        t_cam: Tensor,
        patch: Tensor,
    ) -> Outputs:
        query = {"uv": uv, "t_src": t_src, "t_tgt": t_tgt, "t_cam": t_cam, "patch": patch}
        return self.model.decode(memory, query, validate=False)

    @staticmethod
    def _packed(out: Outputs) -> Tensor:
        """(N, 13) float32 of one clip's answers: a chunk leaves the device as one piece."""
        columns = (
            out["xyz"],
            out["uv"],
            out["visible"].sigmoid()[..., None],
            out["displacement"],
            out["normal"],
            out["confidence"][..., None],
        )
        return torch.cat([column.float() for column in columns], dim=-1)[0]

    def _on_device(self, frames: np.ndarray[Any, Any]) -> Tensor:
        """(T, H, W, 3) to (1, T, 3, H, W) on the device, without a copy of its own."""
        return torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2)[None]


class ModelClip:
    """An open clip of `ModelAnswers`."""

    def __init__(
        self, owner: ModelAnswers, info: ClipInfo, memory: Memory | KeysValues, frames: Tensor
    ) -> None:
        self.info = info
        self._owner, self._memory, self._frames = owner, memory, frames

    @property
    def num_frames(self) -> int:
        """T."""
        return self.info.num_frames

    def ask(self, uv: Any, t_src: Any, t_tgt: Any, t_cam: Any) -> Answer:
        """Answer; see `OpenClip`."""
        queries = checked_query(uv, t_src, t_tgt, t_cam, self.num_frames)
        return self._owner.answer(self._memory, self._frames, queries)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise UsageError("Unknown device", expected="auto, cpu or cuda", found=name)
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("There is no GPU that torch can use", found=name, mend="device cpu")
    return torch.device(name)
