"""Checks of settings that several commands share, made before long work starts."""

from typing import Any

from rasr.checks import check_whole
from rasr.errors import RasrError


def check_crop(gt_size: Any, scale: Any) -> None:
    """Raise a RasrError, which names the key, unless crops of `gt_size` pixels can be shrunk by `scale`."""
    check_whole("gt_size", gt_size, least=1)
    check_whole("scale", scale, least=1)
    if gt_size % scale:
        raise RasrError(f"gt_size={gt_size} is not a multiple of scale={scale}; give one that is")
