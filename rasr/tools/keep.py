"""Compute once what the one-step backbone makes of every image of a reference index."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.errors import RasrError
from rasr.inference import open_restorer
from rasr.references import from_hit
from rasr.refir import open_refir
from rasr.retrieval import ReferenceIndex
from rasr.retrieval.retriever import to_hit

logger = logging.getLogger(__name__)


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
