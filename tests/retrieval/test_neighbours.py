"""Neighbours: the leak-guarded top-k of many images, once, in a file that training reads."""

import pyarrow.parquet
import pytest
import torch

from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, Retriever, build_index, write_neighbours


class CountingEncoder(ColorGradientEncoder):
    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.count, self.limit = 0, limit

    def encode(self, images):
        if self.count + len(images) > self.limit:
            raise KeyboardInterrupt
        self.count += len(images)
        return super().encode(images)


@pytest.fixture
def database(tmp_path):
    for n in range(6):
        write_png(torch.rand(3, 24, 24), tmp_path / "db" / f"{n}.png")
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(), show_progress=False)
    return tmp_path / "db"


def write(database, images, k=2, limit=10**9, **settings) -> tuple[CountingEncoder, list[dict]]:
    encoder = CountingEncoder(limit)
    output = database.parent / "out" / "neighbours.parquet"
    with Retriever.open(database.parent / "index") as retriever:
        retriever.encoder = encoder
        write_neighbours(retriever, images, output, k, batch_size=2, show_progress=False, **settings)
    assert [file.name for file in output.parent.iterdir()] == [output.name], "nothing is left beside it"
    return encoder, pyarrow.parquet.read_table(output).to_pylist()


def test_rows_are_the_guarded_top_k(database):
    images = sorted(database.iterdir())
    _, rows = write(database, images)
    assert list(rows[0]) == ["image", "rank", "reference", "score"]
    assert [(row["image"], row["rank"]) for row in rows] == [
        (f"../db/{n}.png", rank) for n in range(6) for rank in range(2)
    ]
    with Retriever.open(database.parent / "index") as retriever:
        from rasr.image_io import read_image

        for n, image in enumerate(images):
            hits = retriever.retrieve(read_image(image), 2, exclude_ids=[f"{n}.png"])
            expected = [(f"../db/{hit.id}", pytest.approx(hit.score, abs=1e-5)) for hit in hits]
            assert [(row["reference"], row["score"]) for row in rows[2 * n : 2 * n + 2]] == expected
    _, rows = write(database, images, k=9)
    assert len(rows) == 6 * 5, "all but itself"


def test_near_duplicates_are_passed_over(database):
    images = sorted(database.iterdir())
    _, rows = write(database, images)
    highest = max(row["score"] for row in rows)
    _, rows = write(database, images, max_score=highest - 1e-4)
    assert max(row["score"] for row in rows) < highest


def test_an_interrupted_run_goes_on(database):
    images = sorted(database.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write(database, images, limit=4)
    (progress,) = (database.parent / "out").iterdir()
    progress.write_bytes(progress.read_bytes()[:-3])  # killed while it wrote: the last line does not count
    encoder, rows = write(database, images)
    assert encoder.count == 3
    encoder, fresh = write(database, images)
    assert (encoder.count, rows) == (6, fresh)


def test_other_settings_begin_anew(database):
    images = sorted(database.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write(database, images, limit=4)
    with pytest.raises(KeyboardInterrupt):
        write(database, images, k=1, limit=4)
    assert len(list((database.parent / "out").iterdir())) == 2
