"""The encoders by kind, as the settings in an index know them.

A stored index can name one of these and nothing else: no file decides which code runs.
"""

from collections.abc import Mapping
from typing import Any

from rasr.errors import RasrError, one_line
from rasr.retrieval.encoders.base import ImageEncoder
from rasr.retrieval.encoders.color_gradient import ColorGradientEncoder
from rasr.retrieval.encoders.random import RandomEncoder
from rasr.retrieval.encoders.timm import TimmEncoder

ENCODERS: dict[str, type[ImageEncoder]] = {}


def register_encoder(encoder: type[ImageEncoder]) -> type[ImageEncoder]:
    """Make an encoder known by its `kind`; a class decorator for encoders outside the package."""
    ENCODERS[encoder.kind] = encoder
    return encoder


for _encoder in (ColorGradientEncoder, RandomEncoder, TimmEncoder):
    register_encoder(_encoder)


def encoder_from_settings(settings: Mapping[str, Any], device: str = "auto") -> ImageEncoder:
    """Make the encoder that an index was built with, from the settings kept in it.

    Whether it is the right one shows in the encoder's version.

    Raises:
        RasrError: a kind that is not registered, or settings that this kind does not know.
    """
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in ENCODERS:
        raise RasrError(
            f"unknown kind of encoder {kind!r} in the index's settings; name the encoder yourself, or the "
            "module that registers it in RASR_PLUGINS"
        )
    try:
        return ENCODERS[kind].from_settings(settings, device)
    except TypeError as error:
        raise RasrError(
            f"the index's settings of its encoder {kind} cannot be meant ({one_line(error)}); build it again"
        ) from error
