"""results.jsonl, and how an interrupted run goes on."""

import json

import pytest

from rasr.inference import ResultsLog


def restore(folder, settings, names, *, stop_after=None):
    """A run that restores `names`, or is interrupted after some; returns what it really restored."""
    restored = []
    with ResultsLog(folder, settings) as results:
        for name in names:
            target = folder / f"{name}.png"
            if results.is_done(target, f"hash of {name}"):
                continue
            if len(restored) == stop_after:
                raise KeyboardInterrupt
            target.write_text(name)
            results.add({"output": str(target), "content_hash": f"hash of {name}"})
            restored.append(name)
    return restored


def lines(folder):
    return [json.loads(line)["output"] for line in (folder / "results.jsonl").read_text().splitlines()]


def test_goes_on_after_an_interruption_and_only_then(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path, {"a": 1}, "abcd", stop_after=2)
    assert not (tmp_path / "results.jsonl").exists()
    assert restore(tmp_path, {"a": 1}, "abcd") == ["c", "d"]
    assert lines(tmp_path) == [str(tmp_path / f"{name}.png") for name in "abcd"]
    assert not (tmp_path / "results.partial.jsonl").exists()
    assert restore(tmp_path, {"a": 1}, "abcd") == list("abcd"), "a run that ended is made anew"


def test_other_settings_begin_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path, {"a": 1}, "abcd", stop_after=2)
    assert restore(tmp_path, {"a": 2}, "abcd") == list("abcd")


def test_a_lost_result_and_a_cut_off_line_are_made_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path, {"a": 1}, "abcd", stop_after=3)
    (tmp_path / "a.png").unlink()
    partial = tmp_path / "results.partial.jsonl"
    partial.write_text(partial.read_text()[:-20])
    assert restore(tmp_path, {"a": 1}, "abcd") == ["a", "c", "d"]
    assert sorted(lines(tmp_path)) == [str(tmp_path / f"{name}.png") for name in "abcd"]


def test_another_photograph_of_the_same_name_is_restored(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path, {"a": 1}, "abcd", stop_after=2)
    with ResultsLog(tmp_path, {"a": 1}) as results:
        assert results.is_done(tmp_path / "a.png", "hash of a")
        assert not results.is_done(tmp_path / "a.png", "hash of another")
