"""References of photographs: where they come from, what serves where none is good, what is kept of them."""

from rasr.references.fallbacks import AdaGenRef, CaptionToImage, Fallback, GenRef, OriginLRM
from rasr.references.finder import ReferenceFinder
from rasr.references.kept import KeptReferences
from rasr.references.reference import Reference, from_hit, weigh

__all__ = [
    "AdaGenRef",
    "CaptionToImage",
    "Fallback",
    "GenRef",
    "KeptReferences",
    "OriginLRM",
    "Reference",
    "ReferenceFinder",
    "from_hit",
    "weigh",
]
