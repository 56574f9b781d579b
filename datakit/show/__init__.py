"""Look at a scene: one self-contained HTML file that opens offline."""

from .report import write_report

__all__ = ["write_report"]
