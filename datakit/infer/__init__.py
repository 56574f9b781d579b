"""Inference: depth, cameras, points and tracks of a video, from whatever answers D4RT's queries.

Names are imported when they are used, so that only a model brings torch in.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import Answer, Answerer, ClipFrames, OpenClip
    from .job import JobResult, default_params, estimate, infer
    from .model_answers import ModelAnswers
    from .outputs import OutputOptions
    from .params import InferParams
    from .truth import Errors, TruthAnswers
    from .video import FrameSource, Selection, open_source
    from .viewer import ViewerOptions, write_viewer
    from .window import WindowResult, reconstruct_window

_HOME = {
    "Answer": ".answers",
    "Answerer": ".answers",
    "ClipFrames": ".answers",
    "OpenClip": ".answers",
    "JobResult": ".job",
    "default_params": ".job",
    "estimate": ".job",
    "infer": ".job",
    "ModelAnswers": ".model_answers",
    "OutputOptions": ".outputs",
    "InferParams": ".params",
    "Errors": ".truth",
    "TruthAnswers": ".truth",
    "FrameSource": ".video",
    "Selection": ".video",
    "open_source": ".video",
    "ViewerOptions": ".viewer",
    "write_viewer": ".viewer",
    "WindowResult": ".window",
    "reconstruct_window": ".window",
}

__all__ = [
    "Answer",
    "Answerer",
    "ClipFrames",
    "Errors",
    "FrameSource",
    "InferParams",
    "JobResult",
    "ModelAnswers",
    "OpenClip",
    "OutputOptions",
    "Selection",
    "TruthAnswers",
    "ViewerOptions",
    "WindowResult",
    "default_params",
    "estimate",
    "infer",
    "open_source",
    "reconstruct_window",
    "write_viewer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
