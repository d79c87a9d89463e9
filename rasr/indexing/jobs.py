"""What `index.py` does, a function per job."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.data.manifest import read_manifest, read_rows, write_manifest
from rasr.errors import RasrError
from rasr.inference import Restorer, open_kept
from rasr.models.weights import load_rasr_net
from rasr.references import from_hit
from rasr.retrieval import (
    DatabaseImage,
    ReferenceIndex,
    Retriever,
    build_index,
    check_patches,
    copy_index,
    find_neighbours,
    list_database,
    verify_index,
    write_neighbours,
)
from rasr.retrieval.ranks import Ranks, local_device
from rasr.retrieval.retriever import to_hit

logger = logging.getLogger(__name__)

MANIFESTS = (".csv", ".parquet")


def run_job(cfg: DictConfig) -> None:
    """Does the job of a configuration; the keys are those of `conf/index.yaml`.

    Raises:
        RasrError: a missing key, before anything is opened.
    """
    needed, run = JOBS[cfg.job]
    for key in needed:
        if cfg[key] is None:
            raise RasrError(f"missing key: {key}; add {key}=... to the command, see --help")
    run(cfg)


def build(cfg: DictConfig) -> None:
    """Make the index or bring it up to date; then the references of a manifest, and the latents."""
    restorer = None if cfg.kept is None else open_kept_references(cfg)
    patches = None if cfg.patch_size is None else check_patches(cfg.patch_size, cfg.patch_overlap)
    with all_ranks() as ranks:
        device = {"device": local_device(cfg.encoder.device)} if "device" in cfg.encoder else {}
        encoder = instantiate(cfg.encoder, **device)
        report = build_index(
            list_images_of(cfg.database, cfg.split) if ranks.rank == 0 else [],
            cfg.index,
            encoder,
            engine=cfg.engine,
            quantize=cfg.quantize,
            patches=patches,
            batch_size=cfg.batch_size,
            ranks=ranks,
        )
        if ranks.rank > 0:
            return
    logger.info(
        "%d embedded, %d known under another name or description, %d removed, %d passed over",
        *(report.embedded, report.reused, report.removed, len(report.bad)),
    )
    if cfg.assign is not None:
        with Retriever(ReferenceIndex.open(cfg.index), encoder) as retriever:
            assign_references(
                Path(cfg.assign),
                retriever,
                cfg.references,
                max_score=cfg.max_score,
                batch_size=cfg.batch_size,
            )
    logger.info(
        "%d entries in %d categories, %.1f seconds, %s",
        *(report.entries, report.categories, report.seconds, cfg.index),
    )
    if restorer is not None:
        with ReferenceIndex.open(cfg.index) as index:
            entries = [from_hit(to_hit(entry_id, payload, 1.0)) for entry_id, payload in index.entries()]
        stored = restorer.kept.store(entries, restorer.keep)
        logger.info("%d references kept, %d known, %s", stored.stored, stored.known, cfg.kept)
    if report.bad:
        count = len(report.bad)
        raise RasrError(f"{count} passed over, the rest is indexed; mend or remove, first: {report.bad[0]}")


def verify(cfg: DictConfig) -> None:
    """Check counts, vectors, and the images on disk."""
    with ReferenceIndex.open(cfg.index) as index:
        report = verify_index(index, check_hashes=cfg.check_hashes)
    logger.info("%d entries of %d images checked, %s", report.entries, report.images, cfg.index)
    for problem in report.problems:
        logger.error("%s", problem)
    if report.problems:
        count = len(report.problems)
        raise RasrError(f"{count} problems, run index.py again to mend; first: {report.problems[0]}")


def neighbours(cfg: DictConfig) -> None:
    """Write the best references of many images to a Parquet file, which training reads."""
    images = [image.path for image in list_images_of(cfg.input, cfg.split)]
    if Path(cfg.output).is_dir():
        raise RasrError(f"output={cfg.output} is a folder; name the Parquet file in it")
    with Retriever.open(cfg.index, device=cfg.device) as retriever:
        rows = write_neighbours(
            retriever,
            images,
            cfg.output,
            cfg.references,
            max_score=cfg.max_score,
            batch_size=cfg.batch_size,
        )
    logger.info("%d references of %d images written to %s", rows, len(images), cfg.output)


def copy(cfg: DictConfig) -> None:
    """Copy the index to another engine or to a server; nothing is encoded again."""
    with ReferenceIndex.open(cfg.index) as index:
        count = copy_index(index, cfg.output, engine=cfg.engine, quantize=cfg.quantize)
    logger.info("%d entries copied to %s", count, cfg.output)


JOBS = {
    "build": (("database",), build),
    "verify": ((), verify),
    "neighbours": (("input", "output"), neighbours),
    "copy": (("output",), copy),
}
"""Per job the keys that it cannot do without, besides `index`, and what does it."""


def list_images_of(source: str, split: str | None) -> list[DatabaseImage]:
    """The images of a folder or a manifest; an image's id is its path below the folder, or as listed."""
    if Path(source).suffix not in MANIFESTS:
        return list_database(source)
    rows = [row for row in read_rows(source, split) if row.image]
    return [DatabaseImage(row.image, row.image_path, row.category, row.prompt or None) for row in rows]


def assign_references(
    manifest: Path, retriever: Retriever, k: int, *, max_score: float | None = None, batch_size: int = 16
) -> None:
    """Fill the manifest's column `references` with the best k of each image, never the image itself."""
    rows = read_manifest(manifest)
    images = [row.image_path for row in rows]
    found = find_neighbours(retriever, images, k, max_score=max_score, batch_size=batch_size)
    assigned = [
        replace(row, references=tuple(relative_path(hit.path, manifest.parent) for hit in hits))
        for row, (_, hits) in zip(rows, found, strict=True)
    ]
    write_manifest(manifest, assigned)
    logger.info("references of %d images written to %s", len(rows), manifest)


def relative_path(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def open_kept_references(cfg: DictConfig) -> Restorer:
    """What makes kept references of every image, and the folder for them."""
    if cfg.patch_size is not None:
        raise RasrError(f"kept={cfg.kept} keeps whole images; leave out patch_size={cfg.patch_size}")
    net = load_rasr_net(cfg.weights, backbone=cfg.backbone, fusion=cfg.fusion)
    size = None if net.fusion is None or net.fusion.keeps_any_size else cfg.kept_size
    return Restorer(net, device=cfg.device, kept=open_kept(cfg.kept, net, size=size))


@contextmanager
def all_ranks() -> Iterator[Ranks]:
    """The processes of torchrun, if it started this one."""
    ranks = Ranks.of_environment()
    try:
        yield ranks
    finally:
        ranks.leave()
