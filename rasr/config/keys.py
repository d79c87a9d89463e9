"""What a key of a command is: its default, its meaning in one line, and which values can be meant.

A command's keys are one dataclass (`rasr.config.infer` and its neighbours). Its defaults are the composed
configuration's values, its texts are `--help`'s and docs/configuration.md's, its ranges are checked before
anything is opened.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from rasr.errors import RasrError

REQUIRED = "???"
"""Default of a key that must be given."""


@dataclass(frozen=True)
class Spec:
    """Which values a key takes."""

    help: str
    kind: str
    """text, whole, number, flag, choice or anything."""
    may_be_null: bool
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def values(self) -> str:
        """In words, for tables."""
        if self.kind == "choice":
            said = ", ".join(f"`{choice}`" for choice in self.choices)
        elif self.kind == "flag":
            said = "`true`, `false`"
        elif self.kind in ("whole", "number"):
            said = "whole number" if self.kind == "whole" else "number"
            ends = [f"{end:g}" if end is not None else "" for end in (self.least, self.most)]
            said += f", {ends[0]} to {ends[1]}" if all(ends) else f" from {ends[0]}" if ends[0] else ""
        else:
            said = {"text": "text", "anything": ""}[self.kind]
        return f"{said}, `null`" if self.may_be_null and said else said


def _key(default: Any, spec: Spec) -> Any:
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"spec": spec})
    return field(default=default, metadata={"spec": spec})


def text(default: str | None, help: str, *, may_be_null: bool | None = None) -> Any:
    """Any text that is not empty; a name like 2024, which YAML reads as a number, too."""
    return _key(default, Spec(help, "text", default is None if may_be_null is None else may_be_null))


def whole(
    default: int | str | None,
    help: str,
    *,
    least: int = 1,
    most: int | None = None,
    may_be_null: bool | None = None,
) -> Any:
    """A whole number."""
    null = default is None if may_be_null is None else may_be_null
    return _key(default, Spec(help, "whole", null, least, most))


def number(
    default: float | str | None, help: str, *, least: float | None = None, most: float | None = None
) -> Any:
    """A finite number."""
    return _key(default, Spec(help, "number", default is None, least, most))


def flag(default: bool, help: str) -> Any:
    """true or false."""
    return _key(default, Spec(help, "flag", False))


def choice(default: str | None, choices: Collection[str], help: str) -> Any:
    """One of several texts."""
    return _key(default, Spec(help, "choice", default is None, choices=tuple(choices)))


def anything(default: Any, help: str) -> Any:
    """What the command itself checks."""
    return _key(default, Spec(help, "anything", True))


def specs_of(keys: type) -> dict[str, Spec]:
    """{key: spec} of a command's dataclass."""
    return {entry.name: entry.metadata["spec"] for entry in fields(keys)}


def defaults_of(keys: type) -> dict[str, Any]:
    """{key: default} of a command's dataclass."""
    return {entry.name: _default(entry) for entry in fields(keys)}


def _default(entry: Field) -> Any:
    return entry.default_factory() if callable(entry.default_factory) else entry.default


def check(cfg: Mapping[str, Any], keys: type, *, also: Collection[str] | None = None) -> None:
    """Refuses values that cannot be meant, and keys that there are none of.

    Args:
        cfg: a command's configuration.
        keys: its dataclass.
        also: names of groups, whose values are checked elsewhere; None takes any key.

    Raises:
        RasrError: one line that names the key.
    """
    specs = specs_of(keys)
    for name in cfg if also is not None else ():
        if name not in specs and name not in also:
            near = difflib.get_close_matches(str(name), [*specs, *also], n=1)
            hint = f"did you mean {near[0]}=?" if near else "see --help"
            raise RasrError(f"{name}= is no key of this command; {hint}")
    for name, spec in specs.items():
        if name in cfg:
            check_value(name, cfg[name], spec)


def check_all(config: Any, *, prefix: str = "") -> None:
    """Raises a RasrError that names the first value of a dataclass of keys that cannot be meant.

    Args:
        config: the dataclass's instance.
        prefix: of the names in messages, such as "refir.".
    """
    for name, spec in specs_of(type(config)).items():
        check_value(f"{prefix}{name}", getattr(config, name), spec)


def check_value(name: str, value: Any, spec: Spec) -> None:
    """Raises a RasrError unless a key may have this value."""
    null = ", or null" if spec.may_be_null else ""
    if value is None:
        if spec.may_be_null:
            return
        raise RasrError(f"{name}=null is not meant; give {spec.values.replace('`', '')}")
    if spec.kind == "anything":
        return
    if spec.kind == "whole":
        _check_whole(name, value, spec, null)
    elif spec.kind == "number":
        _check_number(name, value, spec, null)
    elif spec.kind == "flag":
        if not isinstance(value, bool):
            raise RasrError(f"{name}={value} is neither true nor false; give one")
    elif spec.kind == "choice":
        if value not in spec.choices:
            raise RasrError(f"{name}={value!r} is unknown; give one of {', '.join(spec.choices)}{null}")
    elif spec.kind == "text":
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise RasrError(f"{name}={value} is no text; give one{null}")
        if not str(value).strip():
            raise RasrError(f"{name}= is empty; give a value{null}, or leave {name}= out")


def _check_whole(name: str, value: Any, spec: Spec, null: str) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < spec.least:
        raise RasrError(f"{name}={value} is not a whole number of at least {spec.least:g}; give one{null}")
    if spec.most is not None and value > spec.most:
        raise RasrError(f"{name}={value} is above {spec.most:g}; give a whole number up to that")


def _check_number(name: str, value: Any, spec: Spec, null: str) -> None:
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise RasrError(f"{name}={value} is not a finite number; give one{null}")
    for end, is_out, word in ((spec.least, value < (spec.least or 0), "below"), (spec.most, False, "above")):
        is_out = is_out if word == "below" else end is not None and value > end
        if end is not None and is_out:
            raise RasrError(f"{name}={value} is {word} {end:g}; give a {spec.values.replace('`', '')}")
