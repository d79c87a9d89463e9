"""Checkpoint files are complete or absent, whenever the process dies."""

import itertools
import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch

from rasr.training import AtomicCheckpointIO

SIZE = 30_000


def write_for_ever(path: Path) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    for step in itertools.count(1):
        AtomicCheckpointIO().save_checkpoint({"step": step, "weight": torch.full((SIZE,), float(step))}, path)


def test_round_trip(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2), "b": {"c": 1}}, tmp_path / "x" / "last.ckpt")
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / "x" / "last.ckpt")
    assert torch.equal(loaded["a"], torch.ones(2)) and loaded["b"] == {"c": 1}
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["last.ckpt"]


def test_pickled_objects_are_never_loaded(tmp_path):
    torch.save({"a": pytest.raises}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)


def test_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "bad": (i for i in range(3))}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_killed_at_20_random_moments_the_checkpoint_loads(tmp_path):
    """SIGKILL while a process does nothing but write: the file is always one whole state."""
    path = tmp_path / "last.ckpt"
    rng = random.Random(0)
    torn = kills = 0
    while kills < 20 or (not torn and kills < 200):
        kills += 1
        before = path.stat().st_mtime_ns if path.exists() else 0
        writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(path,))
        writer.start()
        deadline = time.monotonic() + 60
        while not path.exists() or path.stat().st_mtime_ns == before:  # on a busy machine it takes a while
            assert time.monotonic() < deadline, "the writer wrote nothing"
            time.sleep(0.001)
        time.sleep(rng.uniform(0.01, 0.06))
        writer.kill()
        writer.join()
        torn += (tmp_path / ".last.ckpt.tmp").exists()
        checkpoint = AtomicCheckpointIO().load_checkpoint(path)
        assert torch.equal(checkpoint["weight"], torch.full((SIZE,), float(checkpoint["step"])))
    assert torn > 0, "no kill fell into a write: the test proves nothing"
