"""The report of a curated set: one HTML page that holds its own thumbnails."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from rasr.image_io import atomic_path, read_image, to_uint8
from rasr.preparation.sets import centre_crop

THUMBNAIL = 128  # pixels
QUALITY = 80  # of the thumbnails' JPEG

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
tr:last-child td { font-weight: 600; }
.strip { display: flex; flex-wrap: wrap; gap: .5rem; margin: .4rem 0 1rem; }
figure { margin: 0; width: 128px; }
figure img { width: 128px; height: 128px; display: block; background: #eee; }
figcaption { font-size: 11px; color: #555; overflow-wrap: anywhere; }
.note { color: #555; }
"""


class ReportPage:
    """Collects headings, tables and strips of thumbnails; `write` saves the page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; its last row is set off as the sum."""
        lines = [_cells("th", header), *(_cells("td", row) for row in rows)]
        self._parts.append("<table>" + "".join(lines) + "</table>")

    def strip(self, pictures: Iterable[tuple[Path, str]]) -> None:
        """Add a row of thumbnails: image file and caption each."""
        figures = "".join(
            f'<figure><img src="{_thumbnail(path)}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for path, caption in pictures
        )
        self._parts.append(f'<div class="strip">{figures}</div>')

    def write(self, path: Path) -> None:
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>"
            f"<body>{''.join(self._parts)}</body></html>\n"
        )
        with atomic_path(path) as temporary:
            temporary.write_text(page, encoding="utf-8")


def _cells(tag: str, values: Sequence[object]) -> str:
    cells = "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values)
    return f"<tr>{cells}</tr>"


def _thumbnail(path: Path) -> str:
    """Return the centre square of an image as a data address."""
    image = read_image(path)
    square = centre_crop(image, min(image.shape[1:]))
    image = Image.fromarray(to_uint8(square)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
