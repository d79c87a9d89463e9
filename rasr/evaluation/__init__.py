"""Figures and pictures that say how good a restoration is."""

from rasr.evaluation.comparison import compare_reports, draw_largest_differences, write_comparisons
from rasr.evaluation.complexity import ModelComplexity, SpandrelComplexity, format_complexity
from rasr.evaluation.folders import check_pairs, match_files, refuse
from rasr.evaluation.html_report import ResultSet, write_contents, write_html
from rasr.evaluation.measure import evaluate_folders
from rasr.evaluation.methods import BicubicMethod, FolderMethod, InferMethod, SpandrelMethod
from rasr.evaluation.metrics import psnr, ssim
from rasr.evaluation.paper_table import COMPLEXITY, fill_table, how_to_make
from rasr.evaluation.protocol import METRICS, Protocol, check_metrics
from rasr.evaluation.report import metrics_table, write_json, write_report, write_table
from rasr.evaluation.tables import Column, Row, Table, to_csv, to_latex, to_markdown

__all__ = [
    "COMPLEXITY",
    "METRICS",
    "BicubicMethod",
    "Column",
    "FolderMethod",
    "InferMethod",
    "ModelComplexity",
    "Protocol",
    "ResultSet",
    "Row",
    "SpandrelComplexity",
    "SpandrelMethod",
    "Table",
    "check_metrics",
    "check_pairs",
    "compare_reports",
    "draw_largest_differences",
    "evaluate_folders",
    "fill_table",
    "format_complexity",
    "how_to_make",
    "match_files",
    "metrics_table",
    "psnr",
    "refuse",
    "ssim",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_comparisons",
    "write_contents",
    "write_html",
    "write_json",
    "write_report",
    "write_table",
]
