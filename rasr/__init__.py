"""Retrieval-augmented super resolution (RASR): the reference implementation."""

__version__ = "0.1.0"
