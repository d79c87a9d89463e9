"""Measure restored images against their ground truth; `python evaluate.py --help` tells more."""

import logging

import hydra
from omegaconf import DictConfig

from rasr.cli import entry_point
from rasr.evaluation import evaluate_folders, write_report

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@entry_point
def main(cfg: DictConfig) -> None:
    report = evaluate_folders(cfg.sr, cfg.gt, metrics=list(cfg.metrics), strict=cfg.strict)
    write_report(report, cfg.output)
    means = ", ".join(f"{name} {value:.4f}" for name, value in report["mean"].items())
    logger.info("%s over %d images; written to %s", means, report["count"], cfg.output)


if __name__ == "__main__":
    main()
