"""Pictures for people to look at; knows no net and no metric."""

from rasr.drawing.panel import PanelCell, draw_panel
from rasr.drawing.provenance import draw_provenance

__all__ = ["PanelCell", "draw_panel", "draw_provenance"]
