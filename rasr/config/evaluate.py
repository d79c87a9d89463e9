"""The keys of evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rasr.config.keys import anything, flag, text, whole

JOBS = ("score", "compare", "table", "complexity", "report")
"""What `job=` can be; the functions are in `rasr.evaluation.jobs`."""


@dataclass
class EvaluateKeys:
    """See `rasr.config.keys`."""

    job: str | None = text(None, "what to do; the first word of the command does as well")
    sr: str | None = text(None, "score: restored images: a directory (searched recursively) or one file")
    gt: str | None = text(None, "ground truth; files are matched by relative path without the extension")
    output: str | None = text(None, "where the results go (a table has outputs/tables/NAME)")
    metrics: Any = anything(
        ["psnr", "ssim"],
        (
            "any of: psnr, ssim, lpips, dists, fid, kid, niqe, fsim, gmsd, vif, musiq, clipiqa, "
            "maniqa (of a table: which of its columns are measured; all, if not given)"
        ),
    )
    strict: bool = flag(
        True,
        "fail on missing, extra, unreadable or size-mismatched files; false leaves them out of the figures",
    )
    batch_size: int = whole(1, "images of one size that the learnt metrics take at once")
    device: str = text("auto", "auto, cpu, cuda or mps")
    folders: Any = anything(None, "further baselines, as folders of their outputs: {NAME: DIR, NAME: DIR}")
    lq: str | None = text(None, "the photographs that baselines restore")
    pair: Any = anything(None, "compares two of the baselines image by image: [NAME, NAME]")
    weights: str | None = text(None, "weights of our own baselines, and of complexity")
    results: str = text("results", "the methods' outputs for a table, as results/wr_sr/seesr")
    testsets: str = text("outputs/testsets", "its test sets, as outputs/testsets/wr_sr with gt/ and lq/")
    size: int = whole(512, "complexity: side of the result in pixels")
    report_images: int = whole(8, "photographs in report.html; 0 writes no page", least=0)
    report_crop: int = whole(192, "side of its crops in pixels")
    references: str | None = text(None, "database whose images report.html shows beside the restorations")
    wandb: str | None = text(None, "project that gets tables and page (an offline run)")
    index: str | None = text(None, "reference index of our own baselines")
    repeats: int = whole(5, "complexity: timed runs")

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "protocol": ("osediff", "colour space, border and variants: osediff, refir, seesr, s3diff, rgb, yiq"),
        "baselines": (
            "[...]",
            "rows of compare and table, of conf/options/baselines.yaml: bicubic; rasr, rasr_without "
            "and refir (weights=, index=); bsrgan, realesrgan, hat, spandrel "
            "(baselines.NAME.weights=FILE); seesr and the other external ones "
            "(baselines.NAME.folder=DIR)",
        ),
        "table": ("NAME", "rasr1 to rasr5, refir1 to refir10: the paper's figures beside ours"),
        "complexity": ("NAME", "rasr or spandrel, by weights="),
    }
    """Groups and keys within them, with what `--help` shows of them."""
