"""The trainer: shards into a D4RT model, exactly resumable; needs the extra `train`. See docs/train.md."""

from datakit.errors import UsageError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise UsageError("datakit.train needs torch", mend="pip install 'datakit[train]'") from error

from .config import TrainConfig, load_config
from .failures import NonFiniteError
from .trainer import Trainer

__all__ = ["NonFiniteError", "TrainConfig", "Trainer", "load_config"]
