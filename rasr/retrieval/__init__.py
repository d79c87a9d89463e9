"""Retrieval of a reference image (RIRR): encoders, the index and its engines, the retriever, the builder."""

from rasr.retrieval.build import BuildReport, DatabaseImage, build_index, list_database
from rasr.retrieval.copying import copy_index
from rasr.retrieval.encoders.base import ImageEncoder
from rasr.retrieval.encoders.color_gradient import ColorGradientEncoder
from rasr.retrieval.encoders.random import RandomEncoder
from rasr.retrieval.encoders.registry import encoder_from_settings
from rasr.retrieval.encoders.timm import TimmEncoder
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.neighbours import find_neighbours, write_neighbours
from rasr.retrieval.patches import check_patches
from rasr.retrieval.payload import Payload
from rasr.retrieval.policies import (
    Always,
    Given,
    Query,
    RandomReference,
    ReferencePolicy,
    softmax_weights,
)
from rasr.retrieval.retriever import Hit, LeakGuard, Retriever
from rasr.retrieval.verify import VerifyReport, verify_index

__all__ = [
    "Always",
    "BuildReport",
    "ColorGradientEncoder",
    "DatabaseImage",
    "Given",
    "Hit",
    "ImageEncoder",
    "LeakGuard",
    "Payload",
    "Query",
    "RandomEncoder",
    "RandomReference",
    "ReferenceIndex",
    "ReferencePolicy",
    "Retriever",
    "TimmEncoder",
    "VerifyReport",
    "build_index",
    "check_patches",
    "copy_index",
    "encoder_from_settings",
    "find_neighbours",
    "list_database",
    "softmax_weights",
    "verify_index",
    "write_neighbours",
]
