"""Inference: from photographs of any size to their restorations."""

from rasr.inference.opening import open_kept, open_net, open_restorer
from rasr.inference.photographs import Photograph, list_photographs
from rasr.inference.restorer import Restorer
from rasr.inference.results import ResultsLog, output_paths
from rasr.inference.run import restore_photographs

__all__ = [
    "Photograph",
    "Restorer",
    "ResultsLog",
    "list_photographs",
    "open_kept",
    "open_net",
    "open_restorer",
    "output_paths",
    "restore_photographs",
]
