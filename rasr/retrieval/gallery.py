"""A web page to look at a retrieval: each query beside its best references, with scores and categories.

    python -m rasr.tools gallery input=DIR index=PATH output=FILE.html

The page is one file: the pictures are inside, nothing is loaded from elsewhere.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from PIL import Image
from torch import Tensor

from rasr.image_io import atomic_path, read_image, to_uint8
from rasr.retrieval.neighbours import find_neighbours
from rasr.retrieval.retriever import Hit, Retriever

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark; --line: #8884; --muted: #777; }
  body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 1500px; }
  h1 { font-size: 1.3rem; margin: 0; }
  p { color: var(--muted); margin: .3rem 0 1.5rem; }
  section { display: flex; gap: 1rem; padding: 1rem 0; border-top: 1px solid var(--line); overflow-x: auto; }
  figure { margin: 0; flex: 0 0 ${side}px; }
  figure.query { padding-right: 1rem; border-right: 1px solid var(--line); }
  .frame { height: ${side}px; display: flex; align-items: center; justify-content: center; background: #8881;
           border-radius: 6px; overflow: hidden; }
  img { max-width: 100%; max-height: 100%; display: block; }
  figcaption { font-size: .8rem; margin-top: .4rem; overflow-wrap: anywhere; }
  .score { font-variant-numeric: tabular-nums; font-weight: 600; }
  .category { color: var(--muted); }
  .bar { height: 4px; border-radius: 2px; background: var(--line); margin-top: .3rem; }
  .bar i { display: block; height: 100%; border-radius: 2px; background: #2a7de1; }
  .none { align-self: center; color: var(--muted); }
</style>
</head>
<body>
<h1>$title</h1>
<p>$subtitle</p>
$rows
</body>
</html>
""")


def write_gallery(
    retriever: Retriever,
    images: Sequence[Path],
    output: str | Path,
    k: int = 5,
    *,
    max_score: float | None = None,
    thumbnail: int = 180,
    show_progress: bool = True,
) -> None:
    """Write the page.

    Args:
        retriever: over the database.
        images: the queries.
        output: the HTML file; its folder is made, it appears only when it is complete.
        k: references per query.
        max_score: see `rasr.retrieval.find_neighbours`.
        thumbnail: longest side of the pictures in pixels.
        show_progress: draw a progress bar on stderr.
    """
    found = find_neighbours(retriever, images, k, max_score=max_score, show_progress=show_progress)
    rows = [_row(path, hits, thumbnail) for path, hits in found]
    index = retriever.index
    subtitle = (
        f"{len(rows)} queries, {k} references each at most, from {index.location} "
        f"({index.count():,} entries, {index.engine}); encoder {index.encoder_name}. "
        "Scores are cosine similarities."
    )
    page = _PAGE.substitute(
        title="Retrieved references", subtitle=html.escape(subtitle), rows="\n".join(rows), side=thumbnail
    )
    with atomic_path(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _row(path: Path, hits: Iterable[Hit], side: int) -> str:
    query = _figure(read_image(path), side, [path.name, "query"], "query")
    references = [
        _figure(hit.read(), side, [hit.id, hit.category or "no category"], "reference", hit.score)
        for hit in hits
    ]
    return f"<section>{query}{''.join(references) or '<div class=none>no reference</div>'}</section>"


def _figure(image: Tensor, side: int, lines: list[str], kind: str, score: float | None = None) -> str:
    name, remark = map(html.escape, lines)
    measure = ""
    if score is not None:
        width = max(0, min(100, round(100 * score)))
        measure = (
            f'<span class="score">{score:.4f}</span><div class="bar"><i style="width:{width}%"></i></div>'
        )
    return (
        f'<figure class="{kind}"><div class="frame"><img src="{_data_url(image, side)}" alt="{name}"></div>'
        f'<figcaption>{measure}{name}<br><span class="category">{remark}</span></figcaption></figure>'
    )


def _data_url(image: Tensor, side: int) -> str:
    picture = Image.fromarray(to_uint8(image))
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    from rasr.moved import refuse_command

    refuse_command("python -m rasr.retrieval.gallery")
