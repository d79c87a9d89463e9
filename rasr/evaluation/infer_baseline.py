"""Our own system in a row of a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from rasr.composing import compose_command
from rasr.errors import RasrError
from rasr.evaluation.baselines import photographs_of
from rasr.inference.job import infer

logger = logging.getLogger(__name__)


class InferBaseline:
    """Our own checkpoints: what `infer.py` does.

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
        values = {"input": lq, "output": output, **self.arguments, "device": device.type}
        logger.info("%s: infer.py %s", self.label, " ".join(f"{k}={v}" for k, v in values.items()))
        try:
            infer(compose_command("infer", values))
        except RasrError as error:
            raise RasrError(f"{self.label}: {error}") from error
        return output
