"""How points move: static, rigid and explicit trajectories behind one interface."""

from .carry import carry_points
from .kinds import MotionKind, Reason, Tracks, Visibility
from .tracking import track
from .visibility import DEPTH_TOLERANCE

__all__ = ["DEPTH_TOLERANCE", "MotionKind", "Reason", "Tracks", "Visibility", "carry_points", "track"]
