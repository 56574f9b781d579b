"""Write scenes in the formats of other tools: COLMAP and nerfstudio."""

from .colmap import export_colmap
from .frames import Exported
from .nerfstudio import export_nerfstudio

__all__ = ["Exported", "export_colmap", "export_nerfstudio"]
