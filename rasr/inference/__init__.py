"""Inference: from an image of any size to its restoration."""

from rasr.inference.kept import KeptReferences
from rasr.inference.latents import ReferenceLatents
from rasr.inference.photographs import Photograph, list_photographs
from rasr.inference.restorer import Restorer
from rasr.inference.results import ResultsLog, output_paths

__all__ = [
    "KeptReferences",
    "Photograph",
    "ReferenceLatents",
    "Restorer",
    "ResultsLog",
    "list_photographs",
    "output_paths",
]
