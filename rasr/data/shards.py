"""Data sets packed into shards, for collections that outgrow a file system or lie in an object store.

The shards are litdata's (extra dependency group `shards`): a folder, or an `s3://`, `gs://` or `azure://`
address, of chunk files with an `index.json`. Images are stored as the bytes of their files. litdata finds a
sample by its number; of a remote chunk it fetches the sample's bytes alone. So the order stays with
:class:`rasr.data.ResumableDistributedSampler`: full shuffling, and a run that goes on in the middle of an
epoch exactly, on any number of ranks, which litdata's own iteration does not promise when workers change.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rasr.data.dataset import CropDataset, ReferenceDataset
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, decode_pixels, read_pixels

INDEX = "index.json"
READERS = 8
REMOTE = "://"


def is_shards(source: str | Path) -> bool:
    """Whether a data set's path is a set of shards: a remote address, or a folder with their index."""
    return REMOTE in str(source) or (Path(source) / INDEX).is_file()


def write_shards(dataset: ReferenceDataset, output: str | Path, *, shard_bytes: int) -> int:
    """Pack the images of a data set, its references and texts; return the number of samples.

    Every image is decoded once, so that none that is damaged gets in; such a file stops the packing. The
    output appears only when it is complete.

    Args:
        dataset: what to pack; its crops and seeds play no part.
        output: an empty or new folder.
        shard_bytes: size of a chunk file; an image is never divided.
    """
    _import_litdata()
    from litdata.streaming import Cache

    output = Path(output)
    if output.exists() and any(output.iterdir()):
        raise RasrError(f"{output} is not empty; give a new folder")
    unfinished = output.with_name(f".{output.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    writer = Cache(str(unfinished), chunk_bytes=shard_bytes)
    with ThreadPoolExecutor(READERS) as pool:
        # A few at a time: a collection that needs shards does not fit into memory.
        for start in tqdm(range(0, len(dataset), READERS), desc="packing", unit=f"{READERS} images"):
            numbers = range(start, min(start + READERS, len(dataset)))
            for number, item in zip(numbers, pool.map(partial(_pack, dataset), numbers), strict=True):
                writer[number] = item
    writer.done()
    writer.merge()
    if output.exists():
        output.rmdir()
    unfinished.rename(output)
    return len(dataset)


class ShardDataset(CropDataset):
    """Crops of the images of a set of shards; see :class:`rasr.data.dataset.CropDataset`."""

    def __init__(self, source: str | Path, **settings) -> None:
        """Open the shards.

        Args:
            source: folder or address.
            settings: of :class:`rasr.data.dataset.CropDataset`.
        """
        super().__init__(**settings)
        self.source = str(source)
        litdata = _import_litdata()
        try:
            self._items = litdata.StreamingDataset(self.source)
            self._length = len(self._items)
            self._has_references = bool(self.row(0).references)
        except Exception as error:  # litdata and the stores below it raise nearly any type
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RasrError(f"{source}: cannot open the shards ({reason}); check the address") from error

    def __len__(self) -> int:
        return self._length

    @property
    def has_references(self) -> bool:
        return self.two_crops or self._has_references

    def row(self, index: int) -> Row:
        record = json.loads(self._item(index)["row"])
        return Row(**{**record, "references": tuple(record["references"])})

    def pixels(self, index: int, reference: int | None) -> np.ndarray:
        item, row = self._item(index), self.row(index)
        number, name = 0, row.image
        if reference is not None:
            number, name = reference + 1, f"reference {row.references[reference]}"
        lengths = json.loads(item["lengths"])
        start = sum(lengths[:number])
        data = item["data"][start : start + lengths[number]]
        return decode_pixels(data, f"{self.source}, sample {index}, {name}")

    def _item(self, index: int) -> dict[str, Any]:
        """Fetch a sample; the last one is kept, since a crop asks for its texts and its images."""
        if self._last is None or self._last[0] != index:
            try:
                self._last = index, self._items[index]
            except Exception as error:  # a store that fails for a moment must not end a long run
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ImageReadError(
                    f"{self.source}, sample {index}: cannot be fetched ({reason})"
                ) from error
        return self._last[1]

    _last: tuple[int, dict[str, Any]] | None = None


def _pack(dataset: ReferenceDataset, index: int) -> dict[str, Any]:
    row = dataset.row(index)
    paths = () if dataset.two_crops else row.reference_paths
    for path in (row.image_path, *paths):
        read_pixels(path)
    texts = asdict(replace(row, references=row.references if paths else (), place="", lq=""))
    del texts["root"]
    files = [path.read_bytes() for path in (row.image_path, *paths)]
    # One run of bytes and its lengths: litdata takes a list for JSON.
    return {"row": json.dumps(texts), "lengths": json.dumps(list(map(len, files))), "data": b"".join(files)}


def _import_litdata():
    try:
        import litdata
    except ImportError as error:
        raise RasrError("shards need the package litdata; run: pip install -e '.[shards]'") from error
    return litdata
