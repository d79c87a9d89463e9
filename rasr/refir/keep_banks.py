"""Keeps what ReFIR makes of all images of a reference index; `--help` tells more."""

from __future__ import annotations

import logging

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.cli import entry_point
from rasr.errors import RasrError
from rasr.inference import open_restorer
from rasr.references import from_hit
from rasr.refir import open_refir
from rasr.retrieval import ReferenceIndex
from rasr.retrieval.retriever import to_hit

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../../conf", config_name="keep_banks")
@entry_point
def main(cfg: DictConfig) -> None:
    with ReferenceIndex.open(cfg.index) as index:
        references = [from_hit(to_hit(entry_id, payload, 1.0)) for entry_id, payload in index.entries()]
    net = open_refir(
        cfg.weights,
        injection=instantiate(cfg.refir),
        backbone=cfg.backbone,
        osediff_weights=cfg.osediff_weights,
        ref_size=cfg.ref_size,
    )
    restorer = open_restorer(net, kept=cfg.kept, device=cfg.device)
    report = restorer.kept.store(references, restorer.keep)
    megabytes = report.nbytes / 1e6
    logger.info(
        "%d references kept, %d known; %.1f MB in all, %.2f MB each, in %s",
        *(report.stored, report.known, megabytes, megabytes / max(1, report.stored + report.known), cfg.kept),
    )
    if report.bad:
        raise RasrError(f"{len(report.bad)} images are not kept, the rest is; first: {report.bad[0]}")


if __name__ == "__main__":
    main()
