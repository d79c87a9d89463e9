"""Copy an index: to another engine, or from a folder to a Qdrant server."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from rasr.retrieval.engines.base import ReferenceIndex

_PAGE = 1024


def copy_index(
    source: ReferenceIndex,
    location: str | Path,
    *,
    engine: str = "edge",
    quantize: bool = False,
    show_progress: bool = True,
) -> int:
    """Copy all entries into a new index and complete it; nothing is encoded again.

    Args:
        source: stays as it is.
        location: of the new index; a URL is a Qdrant server, which keeps absolute paths.
        engine: see `ReferenceIndex.create`.
        quantize: likewise.
        show_progress: draw a progress bar on stderr.

    Returns:
        How many entries were copied.
    """
    target = ReferenceIndex.create(
        location,
        source.dim,
        source.encoder_name,
        source.encoder_version,
        source.encoder_settings,
        engine=engine,
        patches=source.patches,
        quantize=quantize,
    )
    with target, tqdm(total=source.count(), desc="copying", unit="entry", disable=not show_progress) as bar:
        entries = source.entries()
        for page in _pages(entries):
            ids = [entry_id for entry_id, _ in page]
            target.add(ids, source.vectors(ids), [payload for _, payload in page])
            bar.update(len(page))
        target.optimize()
        return target.count()


def _pages(entries: Iterator) -> Iterator[list]:
    while page := list(islice(entries, _PAGE)):
        yield page
