"""A thorough check of an index: its files, its counts, its vectors, and the images that it names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import content_hash
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.payload import Payload

_PAGE = 1024
_TOLERANCE = 2e-3  # of a vector's norm; float16 rounds it by up to 5e-4


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        entries: in the index.
        images: they belong to.
        problems: one line each.
    """

    entries: int
    images: int
    problems: list[str]


def verify_index(
    index: ReferenceIndex, *, check_hashes: bool = True, show_progress: bool = True
) -> VerifyReport:
    """Check everything that can be checked without the encoder.

    Args:
        index: complete; damage of its own files is an error, as at open.
        check_hashes: read every image and compare its content with the index, not only its existence.
        show_progress: draw a progress bar on stderr.
    """
    index.check_storage()
    problems: list[str] = []
    images: set[str] = set()
    seen = 0
    with tqdm(total=index.count(), desc="checking", unit="entry", disable=not show_progress) as progress:
        for page in _pages(index.entries()):
            ids = [entry_id for entry_id, _ in page]
            problems += _check_vectors(ids, index.vectors(ids))
            for _, payload in page:
                if payload.image not in images:
                    images.add(payload.image)
                    problems += _check_image(payload, check_hashes)
            seen += len(page)
            progress.update(len(page))
    if seen != index.count():
        problems.append(f"{index.count()} entries are counted, {seen} can be read")
    return VerifyReport(seen, len(images), problems)


def _check_vectors(ids: Sequence[str], vectors: np.ndarray) -> list[str]:
    norms = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(norms - 1) <= _TOLERANCE)  # NaN fails too
    return [f"{ids[n]}: its vector has the norm {norms[n]:g} instead of 1" for n in np.flatnonzero(wrong)]


def _check_image(payload: Payload, check_hashes: bool) -> list[str]:
    path = Path(payload.path)
    if not path.is_file():
        return [f"{path}: the image is gone"]
    if check_hashes:
        try:
            if content_hash(path) != payload.content_hash:
                return [f"{path}: the image has changed since it was indexed"]
        except (RasrError, OSError) as error:
            return [str(error)]
    return []


def _pages(entries: Iterator) -> Iterator[list]:
    page = []
    for entry in entries:
        page.append(entry)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
