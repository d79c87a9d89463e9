"""Make a fixed low-quality test set from photographs."""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.data.settings import check_crop
from rasr.errors import RasrError
from rasr.preparation.test_set import make_test_set

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    if cfg.gt_size is not None:
        check_crop(cfg.gt_size, cfg.scale)
    degradation = instantiate(cfg.degradation)
    source, output = Path(str(cfg.input)), Path(str(cfg.output))  # a name like 2024 comes as a number
    made, bad = make_test_set(source, output, degradation, seed=cfg.seed, gt_size=cfg.gt_size)
    logger.info("%d images degraded, %s", made, cfg.output)
    if bad:
        raise RasrError(f"{len(bad)} passed over, the rest is done; mend or remove, first: {bad[0]}")
