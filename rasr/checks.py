"""Checks of values that users give."""

from __future__ import annotations

import math
from typing import Any

from rasr.errors import RasrError


def check_whole(key: str, value: Any, *, least: int) -> None:
    """Raise a RasrError unless the value of a key is a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RasrError(f"{key}={value} is not a whole number of at least {least}; give one")


def check_number(key: str, value: Any) -> None:
    """Raise a RasrError unless the value of a key is a finite number."""
    if isinstance(value, bool) or not isinstance(value, float | int) or not math.isfinite(value):
        raise RasrError(f"{key}={value} is not a finite number; give one")


def check_number_or_none(key: str, value: Any) -> None:
    """Raise a RasrError unless the value of a key is a number or None (null in YAML)."""
    if isinstance(value, bool) or not isinstance(value, float | int | None):
        raise RasrError(f"{key}={value} is not a number; give one, or null for all")
