"""D4RT: model, losses and weights; needs the extra `torch`. See docs/model.md."""

from datakit.errors import UsageError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise UsageError("datakit.d4rt needs torch", mend="pip install 'datakit[torch]'") from error

from .config import CONFIGS, ModelConfig, count_parameters, find_config, forward_flops
from .losses import LossConfig, composite_loss, count_targets
from .model import D4RT, KeysValues, Memory
from .videomae import LoadReport, load_videomae

__all__ = [
    "CONFIGS",
    "D4RT",
    "KeysValues",
    "LoadReport",
    "LossConfig",
    "Memory",
    "ModelConfig",
    "composite_loss",
    "count_parameters",
    "count_targets",
    "find_config",
    "forward_flops",
    "load_videomae",
]
