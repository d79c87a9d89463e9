"""Our own system in a row of a table."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from rasr.errors import RasrError
from rasr.evaluation.baselines import photographs_of

logger = logging.getLogger(__name__)

_INFER = Path(__file__).parents[2] / "infer.py"


class InferBaseline:
    """Our own checkpoints: runs `infer.py`, in a process of its own.

    Args:
        label: name in tables.
        arguments: keys of `infer.py`, besides input, output and device; those that are None are left out.
    """

    needs_lq = True

    def __init__(self, label: str, arguments: dict[str, Any]) -> None:
        if arguments.get("weights", "") is None:
            raise RasrError("missing key: weights; our own methods need weights=FILE, see --help")
        self.label = label
        self.arguments = {key: value for key, value in arguments.items() if value is not None}

    def restore_folder(self, lq: Path | None, output: Path, device: torch.device) -> Path:
        """See `rasr.evaluation.baselines.Baseline`."""
        lq = photographs_of(lq, self.label)
        keys = {"input": lq, "output": output, **self.arguments, "device": device.type}
        arguments = [f"{key}={value}" for key, value in keys.items()]
        logger.info("%s: infer.py %s", self.label, " ".join(arguments))
        code = subprocess.run([sys.executable, str(_INFER), *arguments], check=False).returncode
        if code:
            raise RasrError(f"{self.label}: infer.py ended with {code}; mend what it says above")
        return output
