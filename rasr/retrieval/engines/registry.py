"""The engines by name, as configuration and `meta.json` know them.

A stored index can name one of these and nothing else: no file decides which code runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rasr.errors import RasrError

# Each is imported only when it is used: their libraries take seconds.
_PLACES = {
    "edge": ("rasr.retrieval.engines.edge", "EdgeIndex"),
    "flat": ("rasr.retrieval.engines.flat", "FlatIndex"),
    "server": ("rasr.retrieval.engines.server", "ServerIndex"),
}
_REGISTERED: dict[str, type] = {}


def register_engine(engine: type) -> type:
    """Makes a subclass of `ReferenceIndex` known by its `engine_name`; a decorator for classes elsewhere."""
    name = engine.engine_name
    if not name or name in _PLACES:
        raise ValueError(f"{engine.__name__}: engine_name={name!r} is empty or taken")
    _REGISTERED[name] = engine
    return engine


def get_engine(name: Any) -> Any:
    """The class of an engine; an unknown one is a RasrError."""
    if isinstance(name, str) and name in _REGISTERED:
        return _REGISTERED[name]
    if not isinstance(name, str) or name not in _PLACES:
        known = ", ".join(sorted({"edge", "flat", *_REGISTERED}))
        raise RasrError(
            f"engine={name!r} is unknown; give one of {known}, or the URL of a Qdrant server as index= (an "
            "engine of your own: name the module that registers it in RASR_PLUGINS)"
        )
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
