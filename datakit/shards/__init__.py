"""Shard sets: scenes cut into clips in plain WebDataset tars, with an index and one hash for the whole."""

from .access import Reader
from .codecs import (
    decode_clip_header,
    decode_depth,
    decode_depth_codes,
    decode_instances,
    decode_normal_codes,
    decode_normals,
    decode_rgb,
    depth_from_codes,
    normals_from_codes,
    unpack,
)
from .index import motion_kind_names
from .layout import KINDS, LEVELS, clip_key
from .pack import PackReport, pack
from .params import PackParams
from .reader import MemberLocation, ShardSet, open_set
from .trace import trace
from .verify import verify
from .windows import windows

__all__ = [
    "KINDS",
    "LEVELS",
    "MemberLocation",
    "PackParams",
    "PackReport",
    "Reader",
    "ShardSet",
    "clip_key",
    "decode_clip_header",
    "decode_depth",
    "decode_depth_codes",
    "decode_instances",
    "decode_normal_codes",
    "decode_normals",
    "decode_rgb",
    "depth_from_codes",
    "motion_kind_names",
    "normals_from_codes",
    "open_set",
    "pack",
    "trace",
    "unpack",
    "verify",
    "windows",
]
