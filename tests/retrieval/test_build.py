"""Building: follows the folder, embeds nothing twice, keeps what an interruption left, survives bad files."""

import shutil

import numpy as np
import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, build_index


class CountingEncoder(ColorGradientEncoder):
    """Counts what it encodes; stops like Ctrl-C when `limit` images are done."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.batches, self.limit = [], limit

    def encode(self, images):
        if sum(self.batches) + len(images) > self.limit:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return super().encode(images)


@pytest.fixture
def database(tmp_path):
    for n in range(7):
        write_png(torch.rand(3, 20 + n, 30), tmp_path / "db" / f"c{n % 2}" / "sub" / f"{n}.png")
    write_png(torch.rand(3, 8, 8), tmp_path / "db" / "top.png")
    return tmp_path / "db"


def build(database, encoder=None, **kwargs):
    encoder = encoder or CountingEncoder()
    return build_index(database, database.parent / "index", encoder, show_progress=False, **kwargs), encoder


def contents(database) -> dict:
    index = ReferenceIndex.open(database.parent / "index")
    return {i: (index.payload(i), index.vectors([i])[0].tobytes()) for i in index.ids}


def test_build_describes_every_image(database):
    (database / "c0" / "sub" / "0.txt").write_text("a\nphoto ", encoding="utf-8")
    report, encoder = build(database, batch_size=3)
    assert (report.entries, report.embedded, report.bad, report.removed) == (8, 8, [], 0)
    assert encoder.batches == [3, 3, 2]
    index = ReferenceIndex.open(database.parent / "index")
    payload = index.payload("c0/sub/0.png")
    assert (payload.category, payload.prompt, payload.size) == ("c0", "a photo", (30, 20))
    assert {key: len(ids) for key, ids in index.values("category").items()} == {"c0": 4, "c1": 3, "": 1}
    assert report.categories == 3
    assert len(payload.content_hash) == 64


def test_interrupted_build_goes_on_and_ends_with_the_same_index(database):
    with pytest.raises(KeyboardInterrupt):
        build(database, CountingEncoder(limit=5), batch_size=2)
    assert len(contents(database)) == 4
    report, encoder = build(database, batch_size=2)
    assert (sum(encoder.batches), report.entries) == (4, 8)
    resumed = contents(database)
    shutil.rmtree(database.parent / "index")
    build(database)
    assert resumed == contents(database)
    _, encoder = build(database)
    assert encoder.batches == []


def test_index_follows_the_folder(database):
    build(database)
    (database / "c0" / "sub" / "0.png").rename(database / "c1" / "moved.png")
    shutil.copy(database / "c0" / "sub" / "2.png", database / "copy.png")
    (database / "c1" / "sub" / "1.txt").write_text("now with a prompt")
    (database / "c1" / "sub" / "3.png").unlink()
    write_png(torch.rand(3, 5, 5), database / "c0" / "sub" / "4.png")  # changed
    write_png(torch.rand(3, 5, 6), database / "new.png")
    report, encoder = build(database)
    assert sum(encoder.batches) == report.embedded == 2
    assert (report.reused, report.removed, report.entries) == (3, 2, 9)
    updated = contents(database)
    assert updated["c1/moved.png"][0].size == (30, 20)
    assert updated["c0/sub/4.png"][0].size == (5, 5)
    assert updated["c1/sub/1.png"][0].prompt == "now with a prompt"
    shutil.rmtree(database.parent / "index")
    build(database)
    assert updated == contents(database)


def test_bad_files_are_passed_over_and_counted(database, caplog):
    build(database)
    (database / "c0" / "sub" / "2.png").write_bytes(b"now broken")
    (database / "empty.jpg").write_bytes(b"")
    (database / "c0" / "sub" / "0.txt").write_bytes(b"\xff\xfe\xff")
    report, _ = build(database)
    assert report.entries == 6
    for name in ("2.png", "empty.jpg", "0.txt"):
        assert sum(name in line for line in report.bad) == 1
        assert name in caplog.text
    assert set(contents(database)) == {f"c{n % 2}/sub/{n}.png" for n in (1, 3, 4, 5, 6)} | {"top.png"}


def test_batches_do_not_change_the_vectors(database):
    build(database, batch_size=1)
    one = contents(database)
    shutil.rmtree(database.parent / "index")
    build(database, batch_size=100)
    many = contents(database)
    for key in one:
        np.testing.assert_allclose(*(np.frombuffer(c[key][1], np.float32) for c in (one, many)), atol=1e-6)


def test_relative_paths_and_links_name_the_same_files(database, monkeypatch):
    build(database)
    monkeypatch.chdir(database.parent)
    (database.parent / "link").mkdir()
    (database.parent / "link" / "index").symlink_to(database.parent / "index")
    encoder = CountingEncoder()
    build_index("link/../db", "link/index", encoder, show_progress=False)
    assert encoder.batches == []


def test_mistakes_are_one_clear_error(database, tmp_path):
    with pytest.raises(RasrError, match="batch_size=0"):
        build(database, batch_size=0)
    with pytest.raises(RasrError, match="is a file"):
        build_index(database / "top.png", tmp_path / "index", ColorGradientEncoder())
    with pytest.raises(RasrError, match="nowhere"):
        build_index(tmp_path / "nowhere", tmp_path / "index", ColorGradientEncoder())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(RasrError, match=r"none of its 1 images.*a\.png"):
        build_index(tmp_path / "bad", tmp_path / "other", ColorGradientEncoder(), show_progress=False)
