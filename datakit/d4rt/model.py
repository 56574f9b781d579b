"""D4RT (arXiv 2512.08924): a video is encoded once; then any point is asked for, at any time, in any camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datakit.errors import UsageError

from .config import ModelConfig
from .decoder import Decoder, Head, KeysValuesOfLayer
from .encoder import Encoder
from .query import QueryEmbedding, gather_patches

TIMES = ("t_src", "t_tgt", "t_cam")


@dataclass(frozen=True)
class Memory:
    """What is known of clips.

    Attributes:
        tokens: (B, L, C).
        mask: (B, L) bool, True where a token may be seen; None where all may.
        frames: (B, T, 3, H, W), the frames that colour patches are cut from; not a copy.
    """

    tokens: Tensor
    mask: Tensor | None
    frames: Tensor


@dataclass(frozen=True)
class KeysValues:
    """The memory as every decoder layer sees it, projected once for all later queries.

    Attributes:
        layers: Keys and values of each layer, (B, heads, L, C / heads) both.
        mask: As of `Memory`.
        frames: As of `Memory`.
    """

    layers: tuple[KeysValuesOfLayer, ...]
    mask: Tensor | None
    frames: Tensor


class D4RT(nn.Module):
    """Encoder, query embedding, decoder and head.

    Example:
        >>> model = D4RT(CONFIGS["tiny"])  # doctest: +SKIP
        >>> memory = model.encode(video, frame_mask, aspect_ratio)  # doctest: +SKIP
        >>> answer = model.decode(model.keys_values(memory), query, chunk=4096)  # doctest: +SKIP
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Plain numbers: compilers follow them better than a validated dataclass.
        self.image_size, self.num_frames = config.image_size, config.num_frames
        self.query_patch = config.query_patch
        self.encoder = Encoder(config)
        self.query = QueryEmbedding(config)
        self.decoder = Decoder(config)
        self.head = Head(config)

    def init_weights(self) -> None:
        """Draw all weights anew from torch's generator, as building does: for a model built on the meta device."""
        for module in self.modules():
            if module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def forward(
        self,
        video: Tensor,
        frame_mask: Tensor | None,
        aspect_ratio: Tensor,
        query: Mapping[str, Tensor],
        validate: bool | None = None,
    ) -> dict[str, Tensor]:
        """Answer queries about clips.

        Args:
            video: (B, T, 3, H, W) RGB, uint8 or float in [0, 1]; H = W = `image_size`, T up to `num_frames`.
            frame_mask: (B, T) bool, True where a frame is valid. None where all are, which is faster on a GPU; a
                mask in CPU memory without any False is taken for None.
            aspect_ratio: (B,) W / H of what the square frames show.
            query: uv (B, N, 2) in [0, 1]^2; t_src, t_tgt, t_cam (B, N) int64 in [0, T); patch (B, N, 3, P, P) uint8
                or float in [0, 1], cut from `video` where it is absent or None. Other fields are not looked at.
            validate: Check values ((u, v), times, aspect ratio) too. None: where the tensors are in CPU memory, since
                elsewhere it makes the host wait for the device.

        Returns:
            float32 (float64 in a float64 model):

            * xyz (B, N, 3): the point at time t_tgt in the camera of t_cam, up to scale, OpenCV axes;
            * uv (B, N, 2): where that is in the image of t_cam, image widths and heights;
            * visible (B, N): logit of being seen in frame t_tgt;
            * displacement (B, N, 3): its motion from t_src to t_tgt, rotated into t_cam, in the unit of xyz;
            * normal (B, N, 3): unit normal at t_tgt in t_cam;
            * confidence (B, N): positive.

        Raises:
            UsageError: A shape does not fit, a place is not in the image, a time is not one of the clip's, or an aspect
                ratio is not positive.
        """
        memory = self.encode(video, frame_mask, aspect_ratio, validate)
        return self.decode(memory, query, validate=validate)

    def encode(
        self,
        video: Tensor,
        frame_mask: Tensor | None,
        aspect_ratio: Tensor,
        validate: bool | None = None,
    ) -> Memory:
        """Encode clips; arguments as of `forward`."""
        _check_video(video, frame_mask, aspect_ratio, self.image_size, self.num_frames)
        if _is_checked(validate, aspect_ratio) and not bool((aspect_ratio > 0).all()):
            raise UsageError("aspect_ratio must be positive", found=aspect_ratio.min().item())
        if frame_mask is not None and _is_checked(None, frame_mask) and bool(frame_mask.all()):
            frame_mask = None
        if frame_mask is not None:
            frame_mask = frame_mask.to(video.device)
        tokens, mask = self.encoder(video, frame_mask, aspect_ratio)
        return Memory(tokens, mask, video)

    def keys_values(self, memory: Memory) -> KeysValues:
        """Project a memory once for all queries to come.

        Not for a model whose layers are sharded (FSDP): those gather their weights in `forward` only.
        """
        layers = self.decoder.keys_values(memory.tokens)
        return KeysValues(layers, memory.mask, memory.frames)

    def decode(
        self,
        memory: Memory | KeysValues,
        query: Mapping[str, Tensor],
        chunk: int | None = None,
        frames: Tensor | None = None,
        validate: bool | None = None,
    ) -> dict[str, Tensor]:
        """Answer queries; none sees another, so any order and any chunks give the same.

        Args:
            memory: What `encode` or `keys_values` returned.
            query: As of `forward`.
            chunk: Queries of a clip that are answered at a time, to bound memory; None for all.
            frames: (B, T, 3, H', W') to cut absent patches from instead of the encoder's: sharper ones, say.
            validate: As of `forward`.

        Returns:
            As `forward`.

        Raises:
            UsageError: A shape does not fit, a place is not in the image, or a time is not one of the clip's.
        """
        frames = memory.frames if frames is None else frames
        _check_query(query, frames, self.query_patch)
        if _is_checked(validate, query["t_src"]):
            _check_values(query, memory.frames.shape[1])
        count = query["uv"].shape[1]
        if chunk is None or chunk >= count:
            return self._answer(memory, query, frames, slice(None))
        if chunk < 1:
            raise UsageError("chunk must be at least 1", found=chunk)
        if isinstance(memory, Memory):
            memory = self.keys_values(memory)
        parts = [self._answer(memory, query, frames, slice(at, at + chunk)) for at in range(0, count, chunk)]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def _answer(
        self, memory: Memory | KeysValues, query: Mapping[str, Tensor], frames: Tensor, part: slice
    ) -> dict[str, Tensor]:
        uv = query["uv"][:, part]
        t_src, t_tgt, t_cam = (query[name][:, part] for name in TIMES)
        patch = query.get("patch")
        patch = gather_patches(frames, uv, t_src, self.query_patch) if patch is None else patch[:, part]
        x = self.query(uv, t_src, t_tgt, t_cam, patch)
        x = self.decoder(x, memory.tokens if isinstance(memory, Memory) else memory.layers, memory.mask)
        return self.head(x)


def _is_checked(validate: bool | None, values: Tensor) -> bool:
    """Whether to look at values: never in compiled code, elsewhere as asked or where it costs no waiting."""
    if torch.compiler.is_compiling():
        return False
    return values.device.type == "cpu" if validate is None else validate


def _check_video(
    video: Tensor, frame_mask: Tensor | None, aspect_ratio: Tensor, size: int, num_frames: int
) -> None:
    if video.ndim != 5 or tuple(video.shape[2:]) != (3, size, size):
        raise UsageError(
            "video does not fit the model", expected=f"(B, T, 3, {size}, {size})", found=tuple(video.shape)
        )
    if video.dtype != torch.uint8 and not video.is_floating_point():
        raise UsageError("video has a wrong type", expected="uint8 or float in [0, 1]", found=video.dtype)
    batch, frames = video.shape[:2]
    if not 1 <= frames <= num_frames:
        raise UsageError(
            "The clip has more frames than the model has times for",
            expected=f"1 to {num_frames}",
            found=frames,
            mend="cut the video into overlapping clips, or train a model with a larger num_frames",
        )
    if frame_mask is not None and (
        frame_mask.dtype != torch.bool or tuple(frame_mask.shape) != (batch, frames)
    ):
        raise UsageError(
            "frame_mask does not fit video",
            expected=f"({batch}, {frames}) bool",
            found=f"{tuple(frame_mask.shape)} {frame_mask.dtype}",
        )
    if tuple(aspect_ratio.shape) != (batch,):
        raise UsageError(
            "aspect_ratio does not fit video", expected=f"({batch},)", found=tuple(aspect_ratio.shape)
        )


def _check_query(query: Mapping[str, Tensor], frames: Tensor, size: int) -> None:
    for name in ("uv", *TIMES):
        if name not in query:
            raise UsageError("The query lacks a field", where=name, found=", ".join(query))
    batch, count = frames.shape[0], query["uv"].shape[1]
    shapes: dict[str, tuple[int, ...]] = {"uv": (batch, count, 2)} | {name: (batch, count) for name in TIMES}
    if query.get("patch") is not None:
        shapes["patch"] = (batch, count, 3, size, size)
    for name, shape in shapes.items():
        if tuple(query[name].shape) != shape:
            raise UsageError(
                "A field of the query has a wrong shape",
                where=name,
                expected=shape,
                found=tuple(query[name].shape),
            )


def _check_values(query: Mapping[str, Tensor], frames: int) -> None:
    uv = query["uv"]
    if not bool(((uv >= 0) & (uv <= 1)).all()):  # also where it is NaN
        raise UsageError("A query lies outside the image", where="uv", expected="0 to 1", found=uv.aminmax())
    for name in TIMES:
        times = query[name]
        if times.numel() and not 0 <= times.min() <= times.max() < frames:
            raise UsageError(
                "A time index lies outside the clip",
                where=name,
                expected=f"0 to {frames - 1}",
                found=f"{int(times.min())} to {int(times.max())}",
            )
