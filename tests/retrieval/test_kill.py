"""A build that is killed at any moment goes on when it is run again, and ends with the same index."""

import os
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

KILLS = 20


@pytest.mark.parametrize("engine", ["edge", "flat"])
def test_builds_killed_at_random_moments(tmp_path, engine):
    script = REPOSITORY / "tests" / "retrieval" / "kill_builds.py"
    command = [sys.executable, str(script), str(tmp_path), engine, str(KILLS), "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{KILLS} builds were killed\n"
