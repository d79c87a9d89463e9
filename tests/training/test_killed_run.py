"""A training process killed again and again ends with the weights of one that was left in peace."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import run_entry, write_training_set

KILLS = 20
STEPS = 60


def train(folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    done = run_entry(
        "train.py",
        *("debug=default", f"model.backbone={folder}/backbone", "gt_size=32", "resume=auto"),
        *(f"paths.data_dir={folder}", f"paths.output_dir={folder}/{name}", "data.val=null"),
        *(f"trainer.max_steps={STEPS}", "callbacks.panels.rows=0", "data.batch_size=2"),
        "callbacks.checkpoint.every_n_train_steps=1",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_killed_at_20_random_moments_the_run_ends_as_if_it_never_was(tmp_path):
    write_training_set(tmp_path, count=6, side=40)

    context = multiprocessing.get_context("forkserver")  # the imports are paid once
    context.set_forkserver_preload(["tests.helpers", "rasr.data", "rasr.training", "rasr.models"])
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    rng = random.Random(0)
    steps = []
    for _ in range(KILLS):
        before = last.stat().st_mtime_ns if last.is_file() else 0
        process = context.Process(target=train, args=(tmp_path, "killed"))
        process.start()
        # At least one more step than the last time, then any moment of the next ones.
        while process.is_alive() and (last.stat().st_mtime_ns if last.is_file() else 0) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        steps.append(torch.load(last, weights_only=True)["global_step"])  # whole, at any moment
    assert steps == sorted(steps) and len(set(steps)) == KILLS, steps
    assert steps[-1] < STEPS, "the run was over before the last kill"

    for name in ("killed", "straight"):
        train(tmp_path, name)
    killed, straight = (load_file(tmp_path / name / "weights.safetensors") for name in ("killed", "straight"))
    assert all(torch.equal(killed[name], tensor) for name, tensor in straight.items())
