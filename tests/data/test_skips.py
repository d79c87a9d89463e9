import csv
import logging

from rasr.data.skips import SkipLog


def batch(*skipped):
    return {"sample_id": [f"{i}.png" for i in range(len(skipped))], "skipped": list(skipped)}


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_case_is_written_and_each_bad_file_logged_once(tmp_path, caplog):
    log = SkipLog(tmp_path / "run/skipped.csv")
    with caplog.at_level(logging.WARNING):
        log.record(batch("", ""), 0)
        assert not (tmp_path / "run").exists()
        log.record(batch("", "bad.png: broken"), 0)
        log.record(batch("bad.png: broken", "worse.png: gone"), 1)
    assert log.count == 3
    assert read(tmp_path / "run/skipped.csv") == [
        ["epoch", "replaced_by", "skipped"],
        ["0", "1.png", "bad.png: broken"],
        ["1", "0.png", "bad.png: broken"],
        ["1", "1.png", "worse.png: gone"],
    ]
    assert len(caplog.messages) == 2
    assert "skipped so far: 3, bad files: 2): worse.png: gone" in caplog.messages[1]


def test_a_continued_run_goes_on_in_its_file_and_ranks_have_their_own(tmp_path):
    for _ in range(2):
        SkipLog(tmp_path / "s.csv").record(batch("x"), 0)
    SkipLog(tmp_path / "s.csv", rank=3).record(batch("x"), 0)
    assert len(read(tmp_path / "s.csv")) == 3 and len(read(tmp_path / "s_rank3.csv")) == 2


def test_batches_of_others_are_let_pass():
    log = SkipLog(None)
    log.record([1, 2], 0)
    log.record({"gt": 1}, 0)
    log.record(batch("x"), 0)
    assert log.count == 1
