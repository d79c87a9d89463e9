"""Building follows the database, embeds nothing twice, survives bad files."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, DatabaseImage, Payload, ReferenceIndex, build_index
from rasr.retrieval.patches import crop, patch_boxes
from rasr.retrieval.ranks import Ranks


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


@pytest.fixture(params=["edge", "flat"])
def engine(request):
    return request.param


@pytest.fixture
def database(tmp_path):
    for n in range(7):
        write_png(torch.rand(3, 20 + n, 30), tmp_path / "db" / f"c{n % 2}" / "sub" / f"{n}.png")
    write_png(torch.rand(3, 8, 8), tmp_path / "db" / "top.png")
    return tmp_path / "db"


def build(database, encoder=None, *, images=None, **kwargs):
    encoder = encoder or CountingEncoder()
    settings = {"engine": "flat", "show_progress": False} | kwargs
    return build_index(images or database, database.parent / "index", encoder, **settings), encoder


def contents(database, **settings) -> dict:
    with ReferenceIndex.open(database.parent / "index", **settings) as index:
        return {i: (payload, index.vectors([i])[0].tobytes()) for i, payload in index.entries()}


def test_build_describes_every_image(database, engine):
    (database / "c0" / "sub" / "0.txt").write_text("a\nphoto ", encoding="utf-8")
    report, encoder = build(database, batch_size=3, engine=engine)
    assert (report.entries, report.embedded, report.bad, report.removed) == (8, 8, [], 0)
    assert encoder.batches == [3, 3, 2]
    with ReferenceIndex.open(database.parent / "index") as index:
        assert index.engine == engine
        payload = index.payload("c0/sub/0.png")
        assert (payload.category, payload.prompt, payload.size) == ("c0", "a photo", (30, 20))
        assert (payload.image, payload.box) == ("c0/sub/0.png", None)
        assert index.categories() == {"": 1, "c0": 4, "c1": 3}
        assert report.categories == 3
        assert len(payload.content_hash) == 64


def test_interrupted_build_goes_on_and_ends_with_the_same_index(database, engine):
    with pytest.raises(KeyboardInterrupt):
        build(database, CountingEncoder(limit=5), batch_size=2, engine=engine)
    with pytest.raises(RasrError, match="interrupted"):
        ReferenceIndex.open(database.parent / "index")
    report, encoder = build(database, batch_size=2)
    assert (sum(encoder.batches), report.entries) == (4, 8), "the first four were kept"
    resumed = contents(database)
    shutil.rmtree(database.parent / "index")
    build(database, engine=engine)
    assert resumed == contents(database)
    _, encoder = build(database)
    assert encoder.batches == []


def test_a_build_that_only_lacked_its_end_is_completed(database, engine):
    build(database, engine=engine)
    index = ReferenceIndex.open(database.parent / "index")
    index._begin_writing()
    index.abandon()
    build(database)
    assert len(contents(database)) == 8


def test_index_follows_the_folder(database, engine):
    build(database, engine=engine)
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
    build(database, engine=engine)
    fresh = contents(database)
    assert {i: payload for i, (payload, _) in updated.items()} == {i: p for i, (p, _) in fresh.items()}
    for i in fresh:  # carried vectors are normalised once more
        np.testing.assert_allclose(*(np.frombuffer(c[i][1], np.float32) for c in (updated, fresh)), atol=1e-6)


def test_an_update_without_changes_writes_nothing(database, engine):
    build(database, engine=engine)
    folder = database.parent / "index"
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}
    assert folder / "meta.json" in before
    build(database)
    assert before[folder / "meta.json"] == (folder / "meta.json").stat().st_mtime_ns


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
        np.testing.assert_allclose(*(np.frombuffer(c[key][1], np.float32) for c in (one, many)), atol=1e-3)


def test_relative_paths_and_links_name_the_same_files(database, monkeypatch):
    build(database)
    monkeypatch.chdir(database.parent)
    (database.parent / "link").mkdir()
    (database.parent / "link" / "index").symlink_to(database.parent / "index")
    encoder = CountingEncoder()
    build_index("link/../db", "link/index", encoder, show_progress=False)
    assert encoder.batches == []


def test_images_may_be_listed_one_by_one(database):
    top = database / "top.png"
    top.with_suffix(".txt").write_text("from the sidecar")
    images = [
        DatabaseImage("a", top, "cat", "told"),
        DatabaseImage("b", top),
        DatabaseImage("c", top, "x", ""),
    ]
    report, encoder = build(database, images=images)
    assert (report.entries, sum(encoder.batches)) == (3, 3)
    payloads = {i: payload for i, (payload, _) in contents(database).items()}
    assert [(p.category, p.prompt) for p in payloads.values()] == [
        ("cat", "told"),
        ("", "from the sidecar"),
        ("x", ""),
    ]
    with pytest.raises(RasrError, match="listed twice"):
        build(database, images=[images[0], images[0]])


def test_patch_mode_indexes_crops(database, engine):
    patches = {"size": 16, "overlap": 4}
    (database / "top.png").unlink()
    report, _ = build(database, patches=patches, batch_size=3, engine=engine)
    boxes = {n: patch_boxes(30, 20 + n, 16, 4) for n in range(7)}
    assert report.entries == sum(map(len, boxes.values())) > report.embedded == 7
    with ReferenceIndex.open(database.parent / "index") as index:
        assert index.patches == patches
        box = boxes[3][-1]
        entry = f"c1/sub/3.png#{','.join(map(str, box))}"
        assert index.payload(entry) == Payload(
            str(database / "c1/sub/3.png"),
            "c1",
            "",
            (30, 23),
            index.payload(entry).content_hash,
            "c1/sub/3.png",
            box,
        )
        from rasr.image_io import read_image

        part = crop(read_image(database / "c1/sub/3.png"), box)
        expected = ColorGradientEncoder().encode([part]).numpy()
        np.testing.assert_allclose(index.vectors([entry]), expected, atol=1e-3)
    # One image changes, one moves: its crops go along.
    write_png(torch.rand(3, 40, 40), database / "c0" / "sub" / "0.png")
    Path(database / "c0" / "sub" / "2.png").rename(database / "moved.png")
    report, encoder = build(database, patches=patches)
    assert sum(encoder.batches) == len(patch_boxes(40, 40, 16, 4))
    assert (report.embedded, report.reused) == (1, 1)
    assert sum(i.startswith("moved.png#") for i in contents(database)) == len(boxes[2])
    for wrong in (None, {"size": 16, "overlap": 0}):
        with pytest.raises(RasrError, match="built with patches="):
            build(database, patches=wrong)


class ThreadRanks(Ranks):
    """Ranks that are threads of one process: what one gives all get, through a common list."""

    def __init__(self, rank: int, count: int, shared: list, barrier: threading.Barrier) -> None:
        super().__init__(rank, count)
        object.__setattr__(self, "exchange", lambda value: self._exchange(value, shared, barrier))

    def _exchange(self, value, shared, barrier):
        shared[self.rank] = value
        barrier.wait(timeout=20)
        values = list(shared)
        barrier.wait(timeout=20)
        return values

    def broadcast(self, value):
        return self.exchange(value)[0]

    def gather(self, value):
        values = self.exchange(value)
        return values if self.rank == 0 else []


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_share_the_work_and_agree(database, count):
    (database / "c0" / "sub" / "4.png").write_bytes(b"broken")
    shared, barrier = [None] * count, threading.Barrier(count)
    encoders = [CountingEncoder() for _ in range(count)]

    def run(rank):
        ranks = ThreadRanks(rank, count, shared, barrier)
        return build(database, encoders[rank], ranks=ranks, batch_size=2)[0]

    with ThreadPoolExecutor(count) as threads:
        reports = list(threads.map(run, range(count)))
    assert all(report == reports[0] for report in reports)
    assert (reports[0].embedded, len(reports[0].bad)) == (7, 1)
    assert all(1 <= sum(encoder.batches) <= -(-8 // count) for encoder in encoders)
    together = contents(database)
    shutil.rmtree(database.parent / "index")
    build(database)
    assert together == contents(database)


def test_mistakes_are_one_clear_error(database, tmp_path):
    with pytest.raises(RasrError, match="batch_size=0"):
        build(database, batch_size=0)
    with pytest.raises(RasrError, match="is a file"):
        build_index(database / "top.png", tmp_path / "index", ColorGradientEncoder())
    with pytest.raises(RasrError, match="nowhere"):
        build_index(tmp_path / "nowhere", tmp_path / "index", ColorGradientEncoder())
    with pytest.raises(RasrError, match="engine='fast' is unknown; give one of edge, flat"):
        build(database, engine="fast")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    with pytest.raises(RasrError, match=r"none of the 1 images.*a\.png"):
        build_index(tmp_path / "bad", tmp_path / "other", ColorGradientEncoder(), show_progress=False)
