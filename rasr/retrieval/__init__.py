"""Retrieval of a reference image (RIRR): encoders, the index on disk, the retriever, the builder."""

from rasr.retrieval.build import BuildReport, build_index
from rasr.retrieval.encoders import ColorGradientEncoder, ImageEncoder, TimmEncoder, encoder_from_settings
from rasr.retrieval.index import ReferenceIndex
from rasr.retrieval.retriever import Hit, Retriever
from rasr.retrieval.storage import Payload

__all__ = [
    "BuildReport",
    "ColorGradientEncoder",
    "Hit",
    "ImageEncoder",
    "Payload",
    "ReferenceIndex",
    "Retriever",
    "TimmEncoder",
    "build_index",
    "encoder_from_settings",
]
