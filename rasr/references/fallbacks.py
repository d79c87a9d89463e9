"""What to do where no good reference is found (ReFIR, appendix B and Table 7).

A fallback stands between the references that were found and the restoration: it decides which are used, may
make one itself, may try both. It knows neither models nor files of the restorer: it is given a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rasr.checks import check_number_or_none
from rasr.device import resolve_device
from rasr.errors import RasrError, one_line
from rasr.image_io import to_uint8
from rasr.pretrained import is_within_reach
from rasr.references.reference import Reference, weigh

Restore = Callable[[Sequence[Reference]], Tensor]
"""References (any number) -> (3, H, W) restored image in [0, 1]."""


class Fallback(Protocol):
    """Chooses references and restores with them."""

    makes_references: bool
    """Whether it may use references that were not found."""

    def __call__(
        self, restore: Restore, lq: Tensor, references: list[Reference]
    ) -> tuple[Tensor, list[Reference]]:
        """(3, h, w) photograph and what was found for it -> the restoration and the references it used."""


class OriginLRM:
    """`origin_lrm`: references that are too far away are left out; without any, the model works alone.

    Args:
        min_score: least cosine of a reference; None takes all. References that were given are always taken.
    """

    makes_references = False

    def __init__(self, min_score: float | None = None) -> None:
        self.min_score = check_min_score(min_score)

    def __call__(
        self, restore: Restore, lq: Tensor, references: list[Reference]
    ) -> tuple[Tensor, list[Reference]]:
        """See `Fallback`."""
        used = near(references, self.min_score)
        return restore(used), used


class GenRef:
    """`gen_ref`: without a near reference, one is generated from a caption of the photograph.

    Args:
        generator: photograph -> reference.
        min_score: see `OriginLRM`.
    """

    makes_references = True

    def __init__(self, generator: Callable[[Tensor], Reference], min_score: float | None = None) -> None:
        self.generator = generator
        self.min_score = check_min_score(min_score)

    def __call__(
        self, restore: Restore, lq: Tensor, references: list[Reference]
    ) -> tuple[Tensor, list[Reference]]:
        """See `Fallback`."""
        used = near(references, self.min_score) or [self.generator(lq)]
        return restore(used), used


class AdaGenRef:
    """`ada_gen_ref`: restores with what was found and with a generated reference, and keeps the better.

    Args:
        generator: photograph -> reference.
        metric: (3, H, W) in [0, 1] -> quality without ground truth, higher is better.
    """

    makes_references = True

    def __init__(self, generator: Callable[[Tensor], Reference], metric: Callable[[Tensor], float]) -> None:
        self.generator = generator
        self.metric = metric

    def __call__(
        self, restore: Restore, lq: Tensor, references: list[Reference]
    ) -> tuple[Tensor, list[Reference]]:
        """See `Fallback`; equal scores keep the reference that was found."""
        candidates = [used for used in (references, [self.generator(lq)]) if used]
        results = [(restore(candidate), candidate) for candidate in candidates]
        return max(results, key=lambda result: self.metric(result[0]))


class CaptionToImage:
    """Caption of the photograph -> text-to-image -> reference, as the paper does with BLIP and SD 2.0.

    Args:
        captioner: hub id or directory of a BLIP captioning model.
        text_to_image: hub id or directory of a Stable Diffusion pipeline.
        size: side of the generated picture in pixels; None takes the pipeline's own.
        n_steps: its diffusion steps.
        seed: of its noise, anew for every picture.
        device: where both run.
    """

    def __init__(
        self,
        captioner: str,
        text_to_image: str,
        *,
        size: int | None = None,
        n_steps: int = 50,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        from diffusers import StableDiffusionPipeline
        from huggingface_hub import constants
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.device = resolve_device(device)
        # Without a network the hub's own retries would take minutes.
        are_here = Path(captioner).is_dir() and Path(text_to_image).is_dir()
        options = {"local_files_only": are_here or not is_within_reach(constants.ENDPOINT)}
        try:
            self.processor = BlipProcessor.from_pretrained(captioner, **options)
            options["use_safetensors"] = True
            blip = BlipForConditionalGeneration.from_pretrained(captioner, **options)
            pipeline = StableDiffusionPipeline.from_pretrained(
                text_to_image, safety_checker=None, feature_extractor=None, **options
            )
        except (OSError, ValueError) as error:
            raise RasrError(
                f"cannot load fallback.generator.captioner={captioner} or text_to_image={text_to_image} "
                f"({one_line(error, first=True)}); give directories, or go online"
            ) from error
        self.captioner = blip.to(self.device).eval()
        self.pipeline = pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.size = size
        self.n_steps = n_steps
        self.seed = seed

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Reference:
        """(3, h, w) photograph -> generated reference, with its caption as prompt."""
        inputs = self.processor(to_uint8(lq), return_tensors="pt").to(self.device)
        tokens = self.captioner.generate(**inputs)
        caption = self.processor.decode(tokens[0], skip_special_tokens=True).strip()
        pixels = self.pipeline(
            caption,
            height=self.size,
            width=self.size,
            num_inference_steps=self.n_steps,
            generator=torch.Generator().manual_seed(self.seed),
            output_type="pt",
        ).images[0]
        image = pixels.float().cpu().clamp(0, 1)
        return Reference("generated", lambda: image, caption)


def check_min_score(min_score: float | None) -> float | None:
    """Give it back if it is a number or None."""
    check_number_or_none("min_score", min_score)
    return min_score


def near(references: Sequence[Reference], min_score: float | None) -> list[Reference]:
    """References whose score reaches `min_score`, their shares anew; those without a score always stay."""
    kept = [r for r in references if min_score is None or r.score is None or r.score >= min_score]
    return kept if len(kept) == len(references) else weigh(kept)
