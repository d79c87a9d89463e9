"""What `evaluate.py` does with its configuration."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.errors import RasrError
from rasr.evaluation.jobs import JOBS, Results
from rasr.evaluation.protocol import EvaluationProtocol

# Of a call as it was before there was job=: which job its keys stand for.
JOB_OF_KEY = {
    "complexity": "complexity",
    "table": "table",
    "baselines": "compare",
    "folders": "compare",
    "sr": "score",
}


def run_job(cfg: DictConfig) -> None:
    """Does the job of a configuration; the keys are those of `conf/evaluate.yaml`.

    Raises:
        RasrError: no or an unknown job, or keys that it lacks or does not read, before anything is opened.
    """
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


def check_keys(job: str, *, needed: Collection[str], read: Collection[str], cfg: DictConfig) -> None:
    """Refuses keys on the command line that a job does not read, and a job without a key that it needs."""
    for override in HydraConfig.get().overrides.task:
        key = re.split(r"[.=@]", override.lstrip("~+"), maxsplit=1)[0]
        if key not in {"job", *read}:
            raise RasrError(f"{key}= has no meaning for job={job}; leave it out, see --help")
    for key in needed:
        if cfg.get(key) is None:
            raise RasrError(f"missing key: {key}; add {key}=... to the command, see --help")
