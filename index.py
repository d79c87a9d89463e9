"""Build the reference index of an image database; `python index.py --help` tells more."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from rasr.cli import entry_point
from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image
from rasr.retrieval import ReferenceIndex, Retriever, build_index

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from rasr.inference import ReferenceLatents

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="index")
@entry_point
def main(cfg: DictConfig) -> None:
    if cfg.references < 1:
        raise RasrError(f"references={cfg.references}: must be at least 1")
    latents, vae = (None, None) if cfg.latents is None else open_latents(cfg)
    encoder = instantiate(cfg.encoder)
    report = build_index(cfg.database, cfg.index, encoder, batch_size=cfg.batch_size)
    logger.info(
        "%d embedded, %d known under another name or description, %d removed, %d passed over",
        *(report.embedded, report.reused, report.removed, len(report.bad)),
    )
    if cfg.assign is not None:
        retriever = Retriever(ReferenceIndex.open(cfg.index), encoder)
        assign_references(Path(cfg.assign), retriever, Path(cfg.database), cfg.references)
    logger.info(
        "%d entries in %d categories, %.1f seconds, %s",
        *(report.entries, report.categories, report.seconds, cfg.index),
    )
    if latents is not None:
        with ReferenceIndex.open(cfg.index) as index:
            payloads = [index.payload(entry_id) for entry_id in index.ids]
        stored = latents.store(((p.content_hash, Path(p.path)) for p in payloads), vae, cfg.batch_size)
        logger.info("latents of %d images stored, %d known, %s", stored.stored, stored.known, cfg.latents)
    if report.bad:
        count = len(report.bad)
        raise RasrError(f"{count} passed over, the rest is indexed; mend or remove, first: {report.bad[0]}")


def open_latents(cfg: DictConfig) -> "tuple[ReferenceLatents, AutoencoderKL]":
    """The folder for z_ref of every image, and the VAE that makes them."""
    from rasr.inference import ReferenceLatents, resolve_device  # brings diffusers: seconds
    from rasr.models import load_base_vae

    if cfg.backbone is None:
        raise RasrError("latents= needs a VAE; give backbone=DIRECTORY, the base model of your weights")
    vae = load_base_vae(cfg.backbone).to(resolve_device(cfg.device))
    return ReferenceLatents.create(cfg.latents, vae, cfg.latent_size), vae


def assign_references(manifest: Path, retriever: Retriever, database: Path, k: int) -> None:
    """Fill the manifest's column `references` with the best k of each image, never the image itself."""
    from rasr.data.manifest import SEPARATOR, read_manifest, write_manifest  # brings Lightning: seconds

    rows = []
    for row in tqdm(read_manifest(manifest), desc="assigning", unit="image"):
        own_id = Path(os.path.relpath(row.image_path, database)).as_posix()
        own_hash = content_hash(row.image_path)
        image = read_image(row.image_path)
        hits = retriever.retrieve(image, k, exclude_ids=[own_id], exclude_hashes=[own_hash])
        if len(hits) < k:
            logger.warning("%s: only %d references in the index, not %d", row.image, len(hits), k)
        paths = [Path(os.path.relpath(hit.path, manifest.parent)).as_posix() for hit in hits]
        if clash := next((path for path in paths if SEPARATOR in path), None):
            raise RasrError(f"{clash}: {SEPARATOR!r} in its name separates references; rename the file")
        rows.append(replace(row, references=tuple(paths)))
    write_manifest(manifest, rows)
    logger.info("references of %d images written to %s", len(rows), manifest)


if __name__ == "__main__":
    main()
