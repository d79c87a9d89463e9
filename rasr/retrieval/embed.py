"""The loop that embeds images and adds them to an index: reading ahead, in batches, on several ranks."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from torch import Tensor
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import read_image
from rasr.retrieval.encoders.base import ImageEncoder
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.patches import crop, entry_id, patch_boxes
from rasr.retrieval.payload import Payload
from rasr.retrieval.ranks import Ranks

logger = logging.getLogger(__name__)

_Batch = tuple[list[Payload], np.ndarray, list[str]]


def reading_threads() -> int:
    """Enough to keep an encoder busy; Pillow decodes without the interpreter's lock."""
    return min(8, os.cpu_count() or 1)


class Embedder:
    """Embeds images; rank 0 adds them to the index."""

    def __init__(
        self,
        encoder: ImageEncoder,
        patches: dict[str, int] | None,
        batch_size: int,
        ranks: Ranks,
        show_progress: bool,
    ) -> None:
        self._encoder = encoder
        self._patches = patches
        self._batch_size = batch_size
        self._ranks = ranks
        self._show_progress = show_progress

    def run(self, index: ReferenceIndex | None, todo: Sequence[Payload], bad: list[str]) -> int:
        """Embed every image; to be called on all ranks with the same `todo`.

        Args:
            index: on rank 0 where the entries go, None on the others.
            todo: the images, without size and box.
            bad: takes one line for each image that was passed over (on rank 0).

        Returns:
            How many images were embedded (on rank 0).
        """
        versions = set(self._ranks.gather(self._encoder.version))
        if len(versions) > 1:
            raise RasrError(f"the ranks have different encoders: {versions}; give all the same weights")
        shards = [todo[rank :: self._ranks.count] for rank in range(self._ranks.count)]
        steps = range(-(-len(shards[0]) // self._batch_size))
        embedded = 0
        is_silent = not (self._show_progress and todo)
        with tqdm(total=len(todo), desc="embedding", unit="image", disable=is_silent) as progress:
            batches = self._batches(shards[self._ranks.rank])
            for _, batch in zip_longest(steps, batches):  # a shorter shard gathers nothing at its end
                for payloads, vectors, errors in self._ranks.gather(batch or ([], np.empty((0, 0)), [])):
                    images = len({payload.image for payload in payloads})
                    if images:
                        index.add([entry_id(p.image, p.box) for p in payloads], vectors, payloads)
                    for error in errors:
                        logger.warning("passed over: %s", error)
                    bad.extend(errors)
                    embedded += images
                    progress.update(images + len(errors))
        return embedded

    def _batches(self, todo: Sequence[Payload]) -> Iterator[_Batch]:
        for loaded in self._read_ahead(todo):
            payloads, crops, errors = [], [], []
            for payload, image in loaded:
                if isinstance(image, Exception):
                    errors.append(str(image))
                    continue
                height, width = image.shape[1:]
                for box in self._boxes(width, height):
                    payloads.append(replace(payload, size=(width, height), box=box))
                    crops.append(crop(image, box))
            parts = [crops[n : n + self._batch_size] for n in range(0, len(crops), self._batch_size)]
            vectors = [np.asarray(self._encoder.encode(part)) for part in parts]
            yield payloads, np.concatenate(vectors) if vectors else np.empty((0, 0)), errors

    def _boxes(self, width: int, height: int) -> list:
        if self._patches is None:
            return [None]
        return patch_boxes(width, height, self._patches["size"], self._patches["overlap"])

    def _read_ahead(self, todo: Sequence[Payload]) -> Iterator[list[tuple[Payload, Tensor | Exception]]]:
        """Batches of decoded images; the next one is read while the last one is embedded."""
        batches = [todo[n : n + self._batch_size] for n in range(0, len(todo), self._batch_size)]
        with ThreadPoolExecutor(reading_threads()) as threads:
            coming: list[tuple[Payload, Future]] = []
            for batch in [*batches, []]:
                ready, coming = coming, [(p, threads.submit(_read, p.path)) for p in batch]
                if ready:
                    yield [(payload, future.result()) for payload, future in ready]


def _read(path: str) -> Tensor | Exception:
    try:
        return read_image(path)
    except (RasrError, OSError) as error:
        return error
