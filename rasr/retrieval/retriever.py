"""From an image to its references: encode, search, never find the image itself."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rasr.errors import RasrError
from rasr.retrieval.encoders import ImageEncoder, encoder_from_settings
from rasr.retrieval.index import ReferenceIndex


@dataclass(frozen=True)
class Hit:
    """A reference that was found; `score` is the cosine, `path` the file, the rest as in the index."""

    id: str
    score: float
    path: Path
    category: str
    prompt: str
    content_hash: str


class Retriever:
    """Cosine top-k over an index, with the encoder that built it."""

    def __init__(self, index: ReferenceIndex, encoder: ImageEncoder) -> None:
        check_encoder(index, encoder)
        self.index = index
        self.encoder = encoder

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto") -> "Retriever":
        """Open an index and make the encoder that built it, from the settings kept in the index."""
        index = ReferenceIndex.open(path)
        return cls(index, encoder_from_settings(index.encoder_settings, device))

    def retrieve(
        self,
        image: Tensor,
        k: int = 1,
        category: str | None = None,
        exclude_ids: Collection[str] = (),
        exclude_hashes: Collection[str] = (),
    ) -> list[Hit]:
        """Find the best references of one image.

        Args:
            image: (3, H, W), RGB, in [0, 1], any size.
            k: how many are wanted; fewer come back where the index allows fewer.
            category: search in this category only.
            exclude_ids: the leak guard: the query's own id, when it is itself in the database.
            exclude_hashes: the leak guard by content: hashes of the query's own file, under whatever id.

        Returns:
            Best first; equal scores in the order of ids.
        """
        if category is not None and category not in (known := self.index.values("category")):
            names = ", ".join(sorted(name for name in known if name)) or "none"
            raise RasrError(f"category {category!r} is not in the index {self.index.path}; it has: {names}")
        vectors = self.encoder.encode([image]).numpy()
        wanted = None if category is None else {"category": category}
        ids, scores = self.index.search(
            vectors, k, wanted, exclude_ids=exclude_ids, exclude_hashes=exclude_hashes
        )
        return [self._hit(entry_id, float(score)) for entry_id, score in zip(ids[0], scores[0], strict=True)]

    def _hit(self, entry_id: str, score: float) -> Hit:
        payload = self.index.payload(entry_id)
        path = Path(payload.path)
        return Hit(entry_id, score, path, payload.category, payload.prompt, payload.content_hash)


def check_encoder(index: ReferenceIndex, encoder: ImageEncoder) -> None:
    """Refuse an encoder whose vectors cannot be compared with those in the index."""
    if (index.encoder_name, index.encoder_version) != (encoder.name, encoder.version):
        raise RasrError(
            f"{index.path}: built by encoder {index.encoder_name} version {index.encoder_version}, "
            f"but this is {encoder.name} version {encoder.version}; "
            "use that encoder with its weights and settings, or build another index"
        )
