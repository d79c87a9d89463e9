"""A build that is killed at any moment goes on when it is run again, and ends with the same index."""

import os
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("engine", "kills"),
    [("edge", 3), ("flat", 3), pytest.param("edge", 20, marks=SLOW), pytest.param("flat", 20, marks=SLOW)],
)
def test_builds_killed_at_random_moments(tmp_path, engine, kills):
    script = REPOSITORY / "tests" / "retrieval" / "kill_builds.py"
    command = [sys.executable, str(script), str(tmp_path), engine, str(kills), "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{kills} builds were killed\n"
