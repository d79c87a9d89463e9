"""Figures and pictures that say how good a restoration is."""

from rasr.evaluation.baselines import Baseline, BicubicBaseline, FolderBaseline, SpandrelBaseline
from rasr.evaluation.comparison import compare_reports, draw_largest_differences, write_comparisons
from rasr.evaluation.complexity import ModelComplexity, SpandrelComplexity, format_complexity
from rasr.evaluation.folders import match_files
from rasr.evaluation.html_report import ResultSet, write_contents, write_html
from rasr.evaluation.infer_baseline import InferBaseline
from rasr.evaluation.measure import evaluate_folders
from rasr.evaluation.metrics import METRICS, psnr, register_metric, ssim
from rasr.evaluation.paper_table import fill_table
from rasr.evaluation.protocol import EvaluationProtocol
from rasr.evaluation.report import metrics_table, write_json, write_report, write_table
from rasr.evaluation.tables import Column, Table, TableRow, to_csv, to_latex, to_markdown

__all__ = [
    "METRICS",
    "Baseline",
    "BicubicBaseline",
    "Column",
    "EvaluationProtocol",
    "FolderBaseline",
    "InferBaseline",
    "ModelComplexity",
    "ResultSet",
    "SpandrelBaseline",
    "SpandrelComplexity",
    "Table",
    "TableRow",
    "compare_reports",
    "draw_largest_differences",
    "evaluate_folders",
    "fill_table",
    "format_complexity",
    "match_files",
    "metrics_table",
    "psnr",
    "register_metric",
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
