"""References that a manifest gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import content_hash, read_sidecar
from rasr.retrieval import Hit, Query, Retriever


class Listed:
    """References that a manifest gives, as a policy of `rasr.retrieval`.

    Args:
        references: of each photograph, best first; none is fine.
    """

    def __init__(self, references: Mapping[Path, Sequence[Path]]) -> None:
        self.references = references
        lost = [path for paths in references.values() for path in paths if not path.is_file()]
        if lost:
            raise RasrError(
                f"{lost[0]}: no such reference ({len(lost)} in all are missing); mend the manifest's column "
                "references, or give reference_kind=none"
            )

    def choose(self, query: Query, retriever: Retriever | None = None, k: int = 1) -> list[Hit]:
        """See `rasr.retrieval.ReferencePolicy`."""
        paths = self.references.get(query.path, ())[:k]
        return [Hit(str(path), 1.0, path, "", read_sidecar(path), content_hash(path)) for path in paths]
