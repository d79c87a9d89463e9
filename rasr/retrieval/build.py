"""Build or refresh a reference index from a database of images.

The index follows the database: new and changed files are embedded, removed ones leave, the rest is untouched.
Files are told apart by the hash of their content, so a copied or moved image is not embedded again. Every
batch is kept before the next begins: an interrupted build goes on where it stopped.
"""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import content_hash, list_images, read_sidecar
from rasr.retrieval.embed import Embedder, reading_threads
from rasr.retrieval.encoders.base import ImageEncoder
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.patches import entry_id
from rasr.retrieval.payload import Payload
from rasr.retrieval.ranks import Ranks
from rasr.retrieval.retriever import check_encoder

logger = logging.getLogger(__name__)

_PAGE = 1024  # entries that move to another name together


@dataclass(frozen=True)
class DatabaseImage:
    """One image of a database: its id there, its file, what is said of it."""

    id: str
    path: Path
    category: str = ""
    prompt: str | None = None
    """None takes the `.txt` file beside the image, if there is one."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        entries: in the index now.
        categories: in the index now.
        embedded: images that went through the encoder.
        reused: images whose content was in the index under another id, or with another prompt or category.
        removed: images that left the index since they are no longer in the database.
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


def list_database(folder: str | Path) -> list[DatabaseImage]:
    """List a folder: the first folder below it is an image's category, the path below it its id."""
    folder = Path(folder)
    if folder.is_file():
        raise RasrError(f"{folder}: is a file; database= must be a folder of images or a manifest")
    images = []
    for file in list_images(folder):
        inside = file.relative_to(folder)
        category = inside.parts[0] if len(inside.parts) > 1 else ""
        images.append(DatabaseImage(inside.as_posix(), file, category))
    return images


def build_index(
    database: str | Path | Sequence[DatabaseImage],
    location: str | Path,
    encoder: ImageEncoder,
    *,
    engine: str = "edge",
    quantize: bool = False,
    patches: dict[str, int] | None = None,
    batch_size: int = 16,
    show_progress: bool = True,
    ranks: Ranks | None = None,
) -> BuildReport:
    """Build the index, or bring it up to date.

    Args:
        database: folder of images, or its images one by one.
        location: the index, made if there is none; engine, quantize and patches are those of a new one.
        encoder: for an index that exists, the one that built it.
        engine: see `ReferenceIndex.create`.
        quantize: likewise.
        patches: size and overlap of crops, see `rasr.retrieval.patches`; None embeds whole images.
        batch_size: images that are embedded, and kept, together, per process.
        show_progress: draw progress bars on stderr.
        ranks: this process among several that embed one database.

    Returns:
        The report, the same on every rank.
    """
    start = time.perf_counter()
    ranks = ranks or Ranks()
    if batch_size < 1:
        raise RasrError(f"batch_size={batch_size}: must be at least 1")
    embedder = Embedder(encoder, patches, batch_size, ranks, show_progress and ranks.rank == 0)
    if ranks.rank > 0:
        embedder.run(None, ranks.broadcast(None), [])
        return ranks.broadcast(None)
    images = list_database(database) if isinstance(database, str | Path) else list(database)
    with _open_or_create(location, encoder, engine, quantize, patches) as index:
        # 1. what should be in the index, and what is
        wanted, bad = _describe_files(images, show_progress)
        known: dict[str, list[tuple[str, Payload]]] = defaultdict(list)
        for key, payload in index.entries():
            known[payload.image].append((key, payload))
        kept = {image for image in wanted if image in known and _agrees(known[image], wanted[image])}
        missing = [image for image in wanted if image not in kept]

        # 2. known content under a new id or with a new description: take its vectors along
        by_hash = {entries[0][1].content_hash: entries for entries in known.values()}
        moved = {i: by_hash[wanted[i].content_hash] for i in missing if wanted[i].content_hash in by_hash}
        carried = [(wanted[image], entry) for image, entries in moved.items() for entry in entries]
        vectors = [index.vectors([key for _, (key, _) in page]) for page in _pages(carried)]
        index.delete([key for image, entries in known.items() if image not in kept for key, _ in entries])
        for page, page_vectors in zip(_pages(carried), vectors, strict=True):
            payloads = [replace(new, size=old.size, box=old.box) for new, (_, old) in page]
            index.add([entry_id(p.image, p.box) for p in payloads], page_vectors, payloads)

        # 3. embed the rest
        todo = ranks.broadcast([wanted[image] for image in missing if image not in moved])
        embedded = embedder.run(index, todo, bad)
        if index.count() == 0:
            raise RasrError(f"{location}: none of the {len(images)} images can be read; first: {bad[0]}")
        if index.state == "writing":
            logger.info("preparing %d entries for search", index.count())
            index.optimize()
        report = BuildReport(
            entries=index.count(),
            categories=len(index.categories()),
            embedded=embedded,
            reused=len(moved),
            removed=sum(image not in wanted for image in known),
            bad=bad,
            seconds=time.perf_counter() - start,
        )
    return ranks.broadcast(report)


def _open_or_create(
    location: str | Path,
    encoder: ImageEncoder,
    engine: str,
    quantize: bool,
    patches: dict[str, int] | None,
) -> ReferenceIndex:
    if not ReferenceIndex.exists(location):
        return ReferenceIndex.create(
            location,
            encoder.dim,
            encoder.name,
            encoder.version,
            encoder.settings,
            engine=engine,
            patches=patches,
            quantize=quantize,
        )
    index = ReferenceIndex.open(location, allow_unfinished=True)
    check_encoder(index, encoder)
    if index.patches != patches:
        raise RasrError(
            f"{location}: built with patches={index.patches}, not {patches}; give the same, or another index="
        )
    return index


def _agrees(entries: list[tuple[str, Payload]], wanted: Payload) -> bool:
    return all(replace(payload, size=(0, 0), box=None) == wanted for _, payload in entries)


def _describe_files(
    images: Sequence[DatabaseImage], show_progress: bool
) -> tuple[dict[str, Payload], list[str]]:
    """Return the payload (but for size and box) of each image by its id, and what is wrong with others."""
    if len({image.id for image in images}) < len(images):
        raise RasrError("an image is listed twice in the database; name each one once")
    wanted, bad = {}, []
    with ThreadPoolExecutor(reading_threads()) as threads:
        described = threads.map(_describe, images)
        for payload in tqdm(
            described, desc="reading", unit="image", total=len(images), disable=not show_progress
        ):
            if isinstance(payload, Payload):
                wanted[payload.image] = payload
            else:
                bad.append(str(payload))
                logger.warning("passed over: %s", payload)
    return wanted, bad


def _describe(image: DatabaseImage) -> Payload | Exception:
    try:
        return Payload(
            path=os.path.abspath(image.path),
            category=image.category,
            prompt=read_sidecar(image.path) if image.prompt is None else image.prompt,
            content_hash=content_hash(image.path),
            image=image.id,
        )
    except (RasrError, OSError) as error:
        return error


def _pages(items: Sequence) -> Iterable[Sequence]:
    return [items[start : start + _PAGE] for start in range(0, len(items), _PAGE)]
