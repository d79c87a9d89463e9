import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rasr.data import ReferenceDataset, Row, write_manifest
from rasr.errors import RasrError
from rasr.image_io import write_png


@pytest.fixture
def manifest(tmp_path):
    """Two images with a reference of the manifest's own, and three others in a database beside it."""
    for name in ("set/a.png", "set/b.png", "set/old.png", "db/1.png", "db/2.png", "db/3.png"):
        write_png(torch.rand(3, 8, 8), tmp_path / name)
    rows = [Row(name, "train", references=("old.png",)) for name in ("a.png", "b.png")]
    write_manifest(tmp_path / "set/manifest.csv", rows)
    return tmp_path / "set/manifest.csv"


def write_neighbours(path, lines, columns=("image", "rank", "reference", "score")):
    table = {name: [line[number] for line in lines] for number, name in enumerate(columns)}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


LINES = [
    ("../set/a.png", 1, "../db/1.png", 0.8),
    ("../set/a.png", 0, "../db/2.png", 0.9),
    ("../set/b.png", 0, "../db/3.png", 0.7),
]


def open_set(manifest, neighbours):
    return ReferenceDataset(manifest, split="train", neighbours=neighbours, gt_size=8, seed=0)


def test_neighbours_take_the_place_of_the_manifests_references(manifest, tmp_path):
    neighbours = write_neighbours(tmp_path / "index/neighbours.parquet", LINES)
    a, b = open_set(manifest, neighbours).rows
    assert a.references == ("../db/2.png", "../db/1.png") and b.references == ("../db/3.png",)
    assert all(path.is_file() for path in (*a.reference_paths, *b.reference_paths))


def test_an_image_without_neighbours_is_named_with_a_count(manifest, tmp_path):
    neighbours = write_neighbours(tmp_path / "n.parquet", [("set/a.png", 0, "db/1.png", 1.0)])
    with pytest.raises(RasrError, match=r"no reference for 1 of 2 images, the first is \S*b\.png"):
        open_set(manifest, neighbours)


def test_a_reference_missing_from_disk_names_row_and_path(manifest, tmp_path):
    neighbours = write_neighbours(tmp_path / "index/neighbours.parquet", LINES)
    (tmp_path / "db/3.png").unlink()
    with pytest.raises(RasrError, match=r"line 3, reference \S*db/3\.png: no such file"):
        open_set(manifest, neighbours)


def test_mistakes_are_one_line(manifest, tmp_path):
    with pytest.raises(RasrError, match=r"none\.parquet: no such neighbours file"):
        open_set(manifest, tmp_path / "none.parquet")
    wrong = write_neighbours(tmp_path / "n.parquet", [("a", 0, "b")], ("image", "rank", "ref"))
    with pytest.raises(RasrError, match="no column 'reference'"):
        open_set(manifest, wrong)
