"""What an index keeps of an entry besides its vector."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Payload:
    """What the index knows of an entry: of an image, or in patch mode of one crop of it.

    Attributes:
        path: the file; absolute outside the index. An index on disk keeps it relative to its own folder, so
            that both can move together.
        category: "" if it has none.
        prompt: "" if it has none.
        size: width, height of the whole image in pixels.
        content_hash: of the file's bytes, see `rasr.image_io.content_hash`.
        image: id of the image; the entry's own id where an entry is a whole image.
        box: left, top, right, bottom of the crop in pixels; None for a whole image.
    """

    path: str
    category: str = ""
    prompt: str = ""
    size: tuple[int, int] = (0, 0)
    content_hash: str = ""
    image: str = ""
    box: Box | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` is the way back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Payload":
        values = dict(values)
        box = values["box"]
        return cls(**{**values, "size": tuple(values["size"]), "box": None if box is None else tuple(box)})
