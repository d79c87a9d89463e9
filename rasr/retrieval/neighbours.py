"""The references of many images, found once: training never queries a live index.

`write_neighbours` makes a Parquet file with the columns `image`, `rank`, `reference` and `score`: one row per
image and rank, rank 0 the best; paths are relative to the file's own folder. Any number of processes can
read it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from rasr.image_io import atomic_path, content_hash, read_image
from rasr.retrieval.retriever import Hit, LeakGuard, Retriever

logger = logging.getLogger(__name__)

COLUMNS = ("image", "rank", "reference", "score")


def find_neighbours(
    retriever: Retriever,
    images: Sequence[Path],
    k: int,
    *,
    max_score: float | None = None,
    batch_size: int = 16,
    show_progress: bool = True,
) -> Iterator[tuple[Path, list[Hit]]]:
    """The best k references of each image, never the image itself: neither its path nor its content.

    Args:
        retriever: over the database.
        images: files; the paper searches with the clean GT.
        k: how many; fewer where the index allows fewer, with a warning.
        max_score: hits above this cosine are near-duplicates and passed over; None allows all.
        batch_size: images that are embedded together.
        show_progress: draw a progress bar on stderr.
    """
    with tqdm(total=len(images), desc="searching", unit="image", disable=not show_progress) as progress:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            vectors = retriever.encoder.encode([read_image(path) for path in batch]).numpy()
            for path, vector in zip(batch, vectors, strict=True):
                guard = LeakGuard(hashes=[content_hash(path)], paths=[path], max_score=max_score)
                hits = retriever.find(vector, k, None, guard)
                if len(hits) < k:
                    logger.warning("%s: only %d references in the index, not %d", path, len(hits), k)
                yield path, hits
            progress.update(len(batch))


def write_neighbours(
    retriever: Retriever,
    images: Sequence[Path],
    output: str | Path,
    k: int,
    *,
    max_score: float | None = None,
    batch_size: int = 16,
    show_progress: bool = True,
) -> int:
    """Write the Parquet file; an interrupted call goes on when it is repeated. See `find_neighbours`.

    Returns:
        The number of rows.
    """
    import pyarrow
    from pyarrow import parquet

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    encoder = f"{retriever.encoder.name} {retriever.encoder.version}"
    settings = [retriever.index.location, retriever.index.count(), encoder, k, max_score]
    progress = output.with_name(f".{output.name}.{_digest(settings)}.progress")
    done = _read_progress(progress)
    todo = [path for path in images if _key(path) not in done]
    with progress.open("a", encoding="utf-8") as file:
        for path, hits in find_neighbours(
            retriever, todo, k, max_score=max_score, batch_size=batch_size, show_progress=show_progress
        ):
            found = [[str(hit.path), round(hit.score, 6)] for hit in hits]
            file.write(json.dumps([_key(path), found]) + "\n")
            file.flush()
    done = _read_progress(progress)
    rows = [
        (_relative(path, output.parent), rank, _relative(reference, output.parent), score)
        for path in images
        for rank, (reference, score) in enumerate(done[_key(path)])
    ]
    schema = pyarrow.schema(
        [
            ("image", pyarrow.string()),
            ("rank", pyarrow.int32()),
            ("reference", pyarrow.string()),
            ("score", pyarrow.float32()),
        ],
        metadata={"encoder": encoder, "index": str(retriever.index.location)},
    )
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in COLUMNS]
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)), schema=schema)
    with atomic_path(output) as temporary:
        parquet.write_table(table, temporary)
    progress.unlink()
    return len(rows)


def _read_progress(file: Path) -> dict[str, list]:
    """What an interrupted run has found; a last line that was cut off counts as not written."""
    if not file.is_file():
        return {}
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        with file.open("r+b") as stream:
            stream.truncate(len(whole))
    return dict(json.loads(line) for line in whole.splitlines())


def _key(path: Path) -> str:
    """Path and state of an image: one that has changed is searched again."""
    stat = os.stat(path)
    return f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"


def _digest(settings: list) -> str:
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:8]


def _relative(path: str | Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
