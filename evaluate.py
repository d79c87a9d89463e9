"""Measure, compare and tabulate restored images; `python evaluate.py --help` tells more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.cli import check_keys, entry_point, rename_keys, spell_out_job
from rasr.config.evaluate import JOBS as JOB_NAMES
from rasr.errors import RasrError

if TYPE_CHECKING:
    from rasr.evaluation.jobs import Results

# Of a call as it was before there was job=: which job its keys stand for.
JOB_OF_KEY = {
    "complexity": "complexity",
    "table": "table",
    "baselines": "compare",
    "folders": "compare",
    "sr": "score",
}


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@entry_point
def main(cfg: DictConfig) -> None:
    # Only now: --help shall not wait for torch.
    from rasr.evaluation import EvaluationProtocol
    from rasr.evaluation.jobs import JOBS

    if cfg.job is None:
        meant = next((job for key, job in JOB_OF_KEY.items() if cfg.get(key)), f"one of {', '.join(JOBS)}")
        raise RasrError(f"missing key: job; add job={meant}, see --help")
    if cfg.job not in JOBS:
        raise RasrError(f"job={cfg.job} is unknown; give one of {', '.join(JOBS)}")
    job = JOBS[cfg.job]
    check_keys(cfg.job, needed=job.needed, read=job.read, cfg=cfg)
    values = instantiate(cfg, _convert_="all")
    values["protocol"] = EvaluationProtocol(**values["protocol"])
    for key in ("metrics", "pair"):
        if isinstance(values[key], str):  # metrics=psnr
            values[key] = [values[key]]
    results = job(values)
    if results is not None and cfg.wandb is not None:
        log_to_wandb(cfg.wandb, results, Path(cfg.output))


def log_to_wandb(project: str, results: Results, output: Path) -> None:
    """Tables and page as an offline run."""
    import wandb

    run = wandb.init(project=project, dir=str(output), mode="offline")
    columns = [f"{column.group} {column.title}".strip() for column in results.table.columns]
    rows = [[row.label, *row.values] for row in results.table.rows]
    run.log({"table": wandb.Table(columns=["method", *columns], data=rows)})
    if results.page is not None:
        run.log({"report": wandb.Html(results.page.read_text("utf-8"), inject=False)})
    run.finish()


if __name__ == "__main__":
    arguments = rename_keys(sys.argv[1:], {"methods": "baselines"})
    arguments = ["job=report" if argument == "report_only=true" else argument for argument in arguments]
    sys.argv[1:] = spell_out_job(arguments, JOB_NAMES)
    main()
