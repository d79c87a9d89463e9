"""Figures and pictures that say how good a restoration is."""

from rasr.evaluation.metrics import METRICS, PROTOCOL, psnr, ssim
from rasr.evaluation.panel import PanelCell, draw_panel
from rasr.evaluation.report import evaluate_folders, match_files, write_report

__all__ = [
    "METRICS",
    "PROTOCOL",
    "PanelCell",
    "draw_panel",
    "evaluate_folders",
    "match_files",
    "psnr",
    "ssim",
    "write_report",
]
