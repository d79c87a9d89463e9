"""Prompt extractors behind one small interface, and the paper's "LR, REF".

A tagger with weights (the field uses RAM or DAPE) is one more class with `extract`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rasr.errors import RasrError
from rasr.image_io import read_sidecar

SOURCES = ("none", "lq", "ref", "lq_ref")
"""The four rows of Table 3."""


class PromptExtractor(Protocol):
    """Finds the text that describes an image."""

    def extract(self, image_path: Path) -> str:
        """The prompt of the image at `image_path`; "" if it has none."""


class NoPrompt:
    """No text for any image."""

    def extract(self, image_path: Path) -> str:
        """Always "" ."""
        return ""


class Sidecar:
    """The text file beside the image: `photo.txt` for `photo.png`."""

    def extract(self, image_path: Path) -> str:
        """The file's text, white space folded; "" without a file."""
        return read_sidecar(image_path)


class Given:
    """One text, given by the user, for all images."""

    def __init__(self, text: str) -> None:
        self.text = text

    def extract(self, image_path: Path) -> str:
        """The text."""
        return self.text


def join_prompts(lq_prompt: str, ref_prompt: str, sources: str) -> str:
    """The restoration's prompt; the paper's default at inference is "LR, REF".

    Args:
        lq_prompt: prompt of the LQ image.
        ref_prompt: prompt of the retrieved reference.
        sources: "none", "lq", "ref" or "lq_ref".
    """
    if sources not in SOURCES:
        raise RasrError(f"prompt_from={sources!r} is unknown; give one of {', '.join(SOURCES)}")
    chosen = {"none": (), "lq": (lq_prompt,), "ref": (ref_prompt,), "lq_ref": (lq_prompt, ref_prompt)}[
        sources
    ]
    return ", ".join(text for text in chosen if text)
