"""Write a web page that shows each query beside its best references."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from rasr.errors import RasrError
from rasr.image_io import list_images
from rasr.retrieval import Retriever
from rasr.retrieval.gallery import write_gallery

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    if Path(cfg.output).is_dir():
        raise RasrError(f"output={cfg.output} is a folder; name the HTML file in it")
    images = list_images(cfg.input)
    with Retriever.open(cfg.index, device=cfg.device) as retriever:
        write_gallery(retriever, images, cfg.output, cfg.k, max_score=cfg.max_score, thumbnail=cfg.thumbnail)
    logger.info("%d queries, %s", len(images), cfg.output)
