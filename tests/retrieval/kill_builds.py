"""Builds an index again and again, kills most of the builds, and compares the last with one that was not.

    python kill_builds.py FOLDER ENGINE KILLS SEED

A process of its own, since it forks: nothing here may have started a thread before that. Each build runs in a
child that is killed at a random moment; between the builds a file of the database changes. Prints one line.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, build_index, verify_index

IMAGES = 12
MOST_ATTEMPTS = 10
"""Builds per wanted kill: a build may end before its moment comes."""


def main(folder: Path, engine: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    rng = random.Random(seed)
    for n in range(IMAGES):
        write_png(torch.rand(3, 16, 16, generator=generator), folder / "db" / f"c{n % 3}" / f"{n}.png")
    start = time.perf_counter()
    wait(fork_build(folder, engine, "straight"))
    duration = whole_build = time.perf_counter() - start
    killed = 0
    for attempt in range(MOST_ATTEMPTS * kills):
        child = fork_build(folder, engine, "index")
        time.sleep(rng.uniform(0, duration))
        if kill_child(child):
            killed += 1
        else:  # a build with little left to do, or a machine that was busy when the whole build was timed
            duration *= 0.8
        if killed == kills:
            break
        n = attempt % IMAGES
        write_png(torch.rand(3, 16, 16, generator=generator), folder / "db" / f"c{n % 3}" / f"{n}.png")
        if attempt % 4 == 3:  # often enough from the very start
            shutil.rmtree(folder / "index", ignore_errors=True)
            duration = whole_build
    shutil.rmtree(folder / "straight")
    for name in ("index", "straight"):
        wait(fork_build(folder, engine, name))
    child = os.fork()
    if child == 0:
        run(lambda: compare(folder))
    wait(child)
    sys.stdout.write(f"{killed} builds were killed\n")


def fork_build(folder: Path, engine: str, name: str) -> int:
    child = os.fork()
    if child == 0:
        run(lambda: build(folder, engine, name))
    return child


def build(folder: Path, engine: str, name: str) -> None:
    settings = {"engine": engine, "batch_size": 2, "show_progress": False}
    build_index(folder / "db", folder / name, ColorGradientEncoder(), **settings)


def compare(folder: Path) -> None:
    with ReferenceIndex.open(folder / "index") as index, ReferenceIndex.open(folder / "straight") as straight:
        assert verify_index(index, show_progress=False).problems == []
        ids = sorted(straight.ids)
        assert sorted(index.ids) == ids
        assert index.payloads(ids) == straight.payloads(ids)
        np.testing.assert_allclose(index.vectors(ids), straight.vectors(ids), atol=1e-6)
        queries = straight.vectors(ids)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        assert index.search(queries, 3)[0] == straight.search(queries, 3)[0]


def run(action) -> None:
    """Do it and leave, without the parent's clean-up."""
    status = 1
    try:
        action()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(status)


def kill_child(child: int) -> bool:
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "a build failed"
    return os.WIFSIGNALED(status)


def wait(child: int) -> None:
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"a child ended with {status}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
