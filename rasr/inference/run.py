"""The one loop that restores photographs: photographs in, PNGs and results.jsonl out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

from torch import Tensor
from tqdm import tqdm

from rasr.drawing.provenance import PROVENANCE_FOLDER, draw_provenance
from rasr.errors import RasrError
from rasr.fusion.provenance import Provenance, restored_share
from rasr.image_io import ImageReadError, content_hash, read_image, write_png
from rasr.inference.photographs import Photograph
from rasr.inference.results import ResultsLog
from rasr.prompts import NoPrompt, PromptExtractor, Sidecar, join_prompts
from rasr.references import Fallback, OriginLRM, Reference, ReferenceFinder

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.01
"""Of a photograph's area; less is no detail taken."""


class RestoresPhotographs(Protocol):
    """What the loop needs: `rasr.inference.Restorer`, or any baseline."""

    def restore(
        self, lq: Tensor, ref: Sequence[Reference], *, prompt: str, traced: list[Provenance]
    ) -> Tensor:
        """(3, h, w) in [0, 1] -> (3, H, W) in [0, 1]."""

    def is_kept(self, reference: Reference) -> bool:
        """Whether a reference need not be computed."""


def restore_photographs(
    photographs: Sequence[Photograph],
    output: Path,
    restorer: RestoresPhotographs,
    *,
    settings: dict[str, Any],
    finder: ReferenceFinder | None = None,
    fallback: Fallback | None = None,
    extractor: PromptExtractor | None = None,
    prompt_from: str = "lq_ref",
    provenance: bool = False,
    keep_finished: bool = False,
) -> None:
    """Restores each photograph with what is found for it.

    An interrupted call goes on when it is repeated with the same settings (`ResultsLog`).

    Args:
        photographs: of `list_photographs`.
        output: folder for results.jsonl and pictures of provenance.
        restorer: restores one.
        settings: all that decides the results besides the photographs, as plain values.
        finder: where references come from; None is none.
        fallback: what serves where none is good; None restores without.
        extractor: texts of the photographs; None has none.
        prompt_from: which texts are used (`join_prompts`).
        provenance: write pictures of where detail came from.
        keep_finished: pass over what a run that ended well has made, too: for settings that say all, even the
            content of the weights.

    Raises:
        RasrError: some photographs cannot be read; the rest is restored.
    """
    finder = finder or ReferenceFinder("none")
    fallback, extractor = fallback or OriginLRM(), extractor or NoPrompt()
    bad, shares = [], []
    with ResultsLog(output, settings, keep_finished=keep_finished) as results:
        for photograph in tqdm(photographs, desc="restoring", unit="image"):
            path, target = photograph.path, photograph.target
            start = time.perf_counter()
            try:
                # 1. the photograph, its text and its references
                own_hash = content_hash(path)
                if results.is_done(target, own_hash):
                    continue
                lq = read_image(path)
                is_told = photograph.prompt and isinstance(extractor, Sidecar)
                lq_prompt = photograph.prompt if is_told else extractor.extract(path)
                found = finder.find(lq, path)
                is_kept = any(restorer.is_kept(reference) for reference in found)

                # 2. restored, perhaps more than once
                traces: dict[tuple[str, ...], Provenance] = {}
                restore = partial(restore_with, restorer, lq, lq_prompt, prompt_from, traces)
                sr, used = fallback(restore, lq, found)
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(path))
                continue

            # 3. the result, and what there is to say of it
            write_png(sr, target)
            trace = traces.get(ids_of(used))
            record = {"input": str(path), "output": str(target), "content_hash": own_hash}
            record |= describe(used, trace, is_kept=is_kept, has_scores=finder.has_scores)
            record["prompt"] = prompt_with(lq_prompt, used, prompt_from)
            if trace is not None:
                shares.append(record["restored_share"])
                if provenance:
                    picture = output / PROVENANCE_FOLDER / target.relative_to(output)
                    draw_provenance(picture, sr, trace, [reference.read() for reference in used])
            record["seconds"] = round(time.perf_counter() - start, 4)
            results.add(record)
        logger.info("%d images restored into %s", len(photographs) - len(bad), output)
        if shares:
            logger.info(
                "%d of %d photographs took detail from a reference, %.0f %% of their area on average",
                sum(share >= LEAST_SHARE for share in shares),
                len(shares),
                100 * mean([share for share in shares if share >= LEAST_SHARE] or [0.0]),
            )
        if bad:
            raise RasrError(
                f"{len(bad)} of {len(photographs)} files could not be read: {', '.join(bad)}; mend or remove "
                "them, and the same command goes on with the rest"
            )


def describe(
    used: Sequence[Reference], trace: Provenance | None, *, is_kept: bool, has_scores: bool
) -> dict[str, Any]:
    """What results.jsonl says of a photograph's references."""
    record: dict[str, Any] = {"reference": used[0].id if used else None, "kept": is_kept}
    if trace is not None:
        record["restored_share"] = round(restored_share(trace), 4)
    if has_scores:
        record["score"] = round(used[0].score, 6) if used and used[0].score is not None else None
    if len(used) > 1:
        record["references"] = {reference.id: round(reference.weight, 6) for reference in used}
    return record


def restore_with(
    restorer: RestoresPhotographs,
    lq: Tensor,
    lq_prompt: str,
    prompt_from: str,
    traces: dict[tuple[str, ...], Provenance],
    references: Sequence[Reference],
) -> Tensor:
    """The restoration of a photograph with any number of references; `traces` gets its origin."""
    traced: list[Provenance] = []
    prompt = prompt_with(lq_prompt, references, prompt_from)
    sr = restorer.restore(lq, references, prompt=prompt, traced=traced)
    if traced:
        traces[ids_of(references)] = traced[0]
    return sr


def ids_of(references: Sequence[Reference]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(reference.id for reference in references)


def prompt_with(lq_prompt: str, references: Sequence[Reference], prompt_from: str) -> str:
    """The text of a restoration: the photograph's and that of its best reference."""
    return join_prompts(lq_prompt, references[0].prompt if references else "", prompt_from)
