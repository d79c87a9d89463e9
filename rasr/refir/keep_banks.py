"""Keeps the banks of all images of a reference index; `python -m rasr.refir.keep_banks --help` tells more."""

from __future__ import annotations

import logging

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from rasr.cli import entry_point
from rasr.errors import RasrError
from rasr.image_io import ImageReadError
from rasr.refir import ReFIRMethod
from rasr.refir.references import from_hit
from rasr.retrieval import ReferenceIndex
from rasr.retrieval.retriever import to_hit

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../../conf", config_name="keep_banks")
@entry_point
def main(cfg: DictConfig) -> None:
    with ReferenceIndex.open(cfg.index) as index:
        entries = list(index.entries())
    method = ReFIRMethod(
        cfg.weights,
        injection=instantiate(cfg.refir),
        backbone=cfg.backbone,
        osediff_weights=cfg.osediff_weights,
        banks=cfg.banks,
        ref_size=cfg.ref_size,
        device=cfg.device,
    )
    bad, files, made = [], set(), 0
    for entry_id, payload in tqdm(entries, desc="keeping", unit="image"):
        reference = from_hit(to_hit(entry_id, payload, 1.0))
        if not method.is_kept(reference):
            try:
                method.restorer.keep(reference)
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(error))
                continue
            made += 1
        files.add(method.restorer.banks.path(reference.key, reference.prompt))
    size = sum(file.stat().st_size for file in files)
    logger.info(
        "%d banks made, %d were there; %.1f MB in all, %.2f MB each, in %s",
        *(made, len(entries) - made - len(bad), size / 1e6, size / 1e6 / max(1, len(files)), cfg.banks),
    )
    if bad:
        raise RasrError(f"{len(bad)} images have no bank, the rest has; first: {bad[0]}")


if __name__ == "__main__":
    main()
