"""Checks of settings that several commands share, made before long work starts."""

from typing import Any

from rasr.errors import RasrError


def check_crop(gt_size: Any, scale: Any) -> None:
    """Raise a RasrError, which names the key, unless crops of `gt_size` pixels can be shrunk by `scale`."""
    check_whole("gt_size", gt_size, least=1)
    check_whole("scale", scale, least=1)
    if gt_size % scale:
        raise RasrError(f"gt_size={gt_size} is not a multiple of scale={scale}; give one that is")


def check_whole(key: str, value: Any, *, least: int) -> None:
    """Raise a RasrError unless the value of a key is a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RasrError(f"{key}={value} is not a whole number of at least {least}; give one")
