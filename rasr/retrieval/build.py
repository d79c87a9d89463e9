"""Build or refresh a reference index from a folder of images.

The index follows the folder: new and changed files are embedded, removed ones leave, the rest is untouched.
Files are told apart by the hash of their content, so a copied or moved image is not embedded again. Every
batch is on disk before the next begins: an interrupted build goes on where it stopped.
"""

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import content_hash, list_images, read_image, read_sidecar
from rasr.retrieval.encoders import ImageEncoder
from rasr.retrieval.index import ReferenceIndex
from rasr.retrieval.retriever import check_encoder
from rasr.retrieval.storage import Payload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        entries: in the index now.
        categories: in the index now.
        embedded: images that went through the encoder.
        reused: images whose content was in the index under another id, or with another prompt or category.
        removed: ids that left the index since their file is gone.
        bad: what is wrong with each file that was passed over, one line each.
        seconds: wall clock.
    """

    entries: int
    categories: int
    embedded: int
    reused: int
    removed: int
    bad: list[str]
    seconds: float


def build_index(
    database: str | Path,
    path: str | Path,
    encoder: ImageEncoder,
    *,
    batch_size: int = 16,
    show_progress: bool = True,
) -> BuildReport:
    """Build the index at `path`, or bring it up to date.

    Args:
        database: folder of images. The first folder below it is the image's category; a `.txt` file beside
            the image is its prompt. An entry's id is the file's path below `database`.
        path: the index, made if there is none.
        encoder: for an index that exists, the one that built it.
        batch_size: images that are embedded, and written, together.
        show_progress: draw progress bars on stderr.
    """
    start = time.perf_counter()
    if batch_size < 1:
        raise RasrError(f"batch_size={batch_size}: must be at least 1")
    database, path = Path(database), Path(path)
    if database.is_file():
        raise RasrError(f"{database}: is a file; database= must be a folder of images")
    files = list_images(database)
    with _open_or_create(path, encoder) as index:
        # 1. what should be in the index
        wanted, bad = _describe_files(database, files, show_progress)
        kept = {
            entry_id
            for entry_id, payload in wanted.items()
            if entry_id in index and replace(index.payload(entry_id), size=(0, 0)) == payload
        }

        # 2. known content under a new id or with a new description: take its vector along
        by_hash = {content: ids[0] for content, ids in index.values("content_hash").items()}
        missing = [entry_id for entry_id in wanted if entry_id not in kept]
        moved = {i: by_hash[wanted[i].content_hash] for i in missing if wanted[i].content_hash in by_hash}
        vectors = index.vectors(moved.values())
        payloads = [replace(wanted[i], size=index.payload(source).size) for i, source in moved.items()]
        removed = sum(entry_id not in wanted for entry_id in index.ids)
        index.delete([entry_id for entry_id in index.ids if entry_id not in kept])
        if moved:
            index.add(list(moved), vectors, payloads)

        # 3. embed the rest
        new = {entry_id: wanted[entry_id] for entry_id in missing if entry_id not in moved}
        embedded = _embed(index, encoder, new, bad, batch_size, show_progress)
        if index.count() == 0:
            raise RasrError(f"{database}: none of its {len(files)} images can be read; first: {bad[0]}")
        return BuildReport(
            entries=index.count(),
            categories=len(index.values("category")),
            embedded=embedded,
            reused=len(moved),
            removed=removed,
            bad=bad,
            seconds=time.perf_counter() - start,
        )


def _open_or_create(path: Path, encoder: ImageEncoder) -> ReferenceIndex:
    if not (path / "meta.json").exists():
        return ReferenceIndex.create(path, encoder.dim, encoder.name, encoder.version, encoder.settings)
    index = ReferenceIndex.open(path)
    check_encoder(index, encoder)
    return index


def _describe_files(
    database: Path, files: list[Path], show_progress: bool
) -> tuple[dict[str, Payload], list[str]]:
    """Return the payload (but for the size) of each id, and what is wrong with the others."""
    wanted, bad = {}, []
    for file in tqdm(files, desc="reading", unit="image", disable=not show_progress):
        inside = file.relative_to(database)
        category = inside.parts[0] if len(inside.parts) > 1 else ""
        try:
            wanted[inside.as_posix()] = Payload(
                path=os.path.abspath(file),
                category=category,
                prompt=read_sidecar(file),
                content_hash=content_hash(file),
            )
        except (RasrError, OSError) as error:
            _note(bad, error)
    return wanted, bad


def _embed(
    index: ReferenceIndex,
    encoder: ImageEncoder,
    new: dict[str, Payload],
    bad: list[str],
    batch_size: int,
    show_progress: bool,
) -> int:
    ids = list(new)
    embedded = 0
    is_silent = not (show_progress and ids)
    with tqdm(total=len(ids), desc="embedding", unit="image", disable=is_silent) as progress:
        for start in range(0, len(ids), batch_size):
            batch = ids[start : start + batch_size]
            images, good = [], []
            for entry_id in batch:
                try:
                    images.append(read_image(new[entry_id].path))
                    good.append(entry_id)
                except (RasrError, OSError) as error:
                    _note(bad, error)
            if good:
                payloads = [
                    replace(new[entry_id], size=(image.shape[2], image.shape[1]))
                    for entry_id, image in zip(good, images, strict=True)
                ]
                index.add(good, np.asarray(encoder.encode(images)), payloads)
            embedded += len(good)
            progress.update(len(batch))
    return embedded


def _note(bad: list[str], error: Exception) -> None:
    bad.append(str(error))
    logger.warning("passed over: %s", error)
