"""What several tests of the data need."""

import io
import logging
import subprocess
from collections.abc import Callable

import pytest

from tests.helpers import run_entry


@pytest.fixture(scope="session")
def run_logged() -> Callable[..., subprocess.CompletedProcess]:
    """Run a script as `run_entry` does, with its log in `stderr`, where pytest would catch it away."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
        log, level = io.StringIO(), logging.root.level
        handler = logging.StreamHandler(log)
        logging.root.addHandler(handler)
        logging.root.setLevel(logging.INFO)
        try:
            done = run_entry(script, *arguments)
        finally:
            logging.root.removeHandler(handler)
            logging.root.setLevel(level)
        done.stderr += log.getvalue()
        return done

    return run
