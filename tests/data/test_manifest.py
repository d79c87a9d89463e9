from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rasr.data import Row, read_rows, write_manifest
from rasr.errors import RasrError
from rasr.image_io import write_png


@pytest.fixture
def write(tmp_path):
    def write_text(text):
        path = tmp_path / "manifest.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def test_what_is_written_is_read(tmp_path):
    rows = [
        Row("train/ä, b.png", "train", "cat", 'a "cat", asleep', ("database/1.png", "../2.png")),
        Row("test/c.png", "test"),
    ]
    write_manifest(tmp_path / "sub" / "manifest.csv", rows)
    read = read_rows(tmp_path / "sub" / "manifest.csv")
    assert [(r.image, r.split, r.category, r.prompt, r.references) for r in read] == [
        (r.image, r.split, r.category, r.prompt, r.references) for r in rows
    ]
    assert [row.place for row in read] == ["line 2", "line 3"]
    assert read[0].image_path == tmp_path / "sub" / "train" / "ä, b.png"
    assert read[0].reference_paths == (tmp_path / "sub/database/1.png", tmp_path / "sub/../2.png")


def test_a_split_is_selected(write):
    path = write("image,split\na.png,train\nb.png,test\nc.png,train\n")
    assert [row.image for row in read_rows(path, "train")] == ["a.png", "c.png"]
    assert len(read_rows(path)) == 3
    with pytest.raises(RasrError, match="no row of split 'val'; its splits are: test, train"):
        read_rows(path, "val")


def test_columns_may_be_absent_and_a_byte_order_mark_present(write):
    (row,) = read_rows(write("\ufeffimage,references\nx.png, a.png ;; b.png;\n"))
    assert row.references == ("a.png", "b.png") and row.split == row.prompt == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'image'"),
        ("path,split\na.png,train\n", "no column 'image'"),
        ("image,spilt\na.png,train\n", "unknown column 'spilt'"),
        ("image,split\n", "has no rows"),
        ("image,split\na.png,train\n,train\n", "line 3: the image is missing"),
        ("image,split\na,b.png,train\n", "line 2: more fields than columns"),
    ],
)
def test_mistakes_name_the_file_and_the_line(write, text, message):
    path = write(text)
    with pytest.raises(RasrError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(RasrError, match=r"none\.csv: no such manifest or folder"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RasrError, match=r"binary\.csv: not a CSV file"):
        read_rows(tmp_path / "binary.csv")


def test_a_folder_stands_in_for_a_manifest(tmp_path):
    for name in ("cat/b.png", "cat/deep/a.png", "dog/a.png", "top.png"):
        write_png(torch.zeros(3, 4, 4), tmp_path / name)
    (tmp_path / "dog" / "a.txt").write_text("a dog\n", encoding="utf-8")
    rows = {row.image: row for row in read_rows(tmp_path, "train")}
    assert list(rows) == ["cat/b.png", "cat/deep/a.png", "dog/a.png", "top.png"]
    assert [row.category for row in rows.values()] == ["cat", "cat", "dog", ""]
    assert rows["dog/a.png"].prompt == "a dog" and rows["cat/b.png"].prompt == ""
    assert all(row.split == "train" and row.image_path.is_file() for row in rows.values())


def test_a_manifest_without_splits_is_one_split(tmp_path):
    (tmp_path / "m.csv").write_text("image\na.png\nb.png\n")
    assert [row.image for row in read_rows(tmp_path / "m.csv", "train")] == ["a.png", "b.png"]


ROWS = [
    Row("train/ä, b.png", "train", "cat", 'a "cat"; asleep', ("database/1;2.png", "../2.png")),
    Row("", "test", lq="photos/c.jpg"),
]


def test_parquet_holds_what_csv_holds_and_more(tmp_path):
    write_manifest(tmp_path / "manifest.parquet", ROWS)
    read = read_rows(tmp_path / "manifest.parquet")
    assert [replace(row, place="", root=Path()) for row in read] == ROWS
    assert [row.place for row in read] == ["row 1", "row 2"] and read[0].root == tmp_path
    with pytest.raises(RasrError, match=r"1;2\.png: ';' in its name separates references"):
        write_manifest(tmp_path / "manifest.csv", ROWS)
    assert not (tmp_path / "manifest.csv").exists()


def test_mistakes_in_parquet_are_one_line(tmp_path):
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(RasrError, match=r"m\.parquet: not a Parquet file"):
        read_rows(path)
    pq.write_table(pa.table({"image": ["a.png"], "spilt": ["x"]}), path)
    with pytest.raises(RasrError, match="unknown column 'spilt'"):
        read_rows(path)
    pq.write_table(pa.table({"image": ["a.png", None]}), path)
    with pytest.raises(RasrError, match="row 2: the image is missing"):
        read_rows(path)


def test_a_photo_without_ground_truth_is_known_by_its_lq(write):
    given, blind = read_rows(write("image,lq\na.png,low/a.png\n,low/b.png\n"))
    assert (given.id, blind.id) == ("a.png", "low/b.png")
    assert blind.lq_path == blind.root / "low/b.png"
