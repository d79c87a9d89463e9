"""Restore photographs with the help of retrieved references; `python infer.py --help` tells more."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import mean

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from rasr.checks import check_number
from rasr.cli import entry_point
from rasr.errors import RasrError
from rasr.evaluation.folders import PROVENANCE_FOLDER
from rasr.evaluation.provenance_picture import draw_provenance
from rasr.fusion.base import Provenance
from rasr.fusion.registry import get_fusion
from rasr.image_io import ImageReadError, content_hash, read_image, write_png
from rasr.inference import Photograph, ResultsLog, list_photographs
from rasr.inference.color_fix import get_color_fix
from rasr.inference.provenance import restored_share
from rasr.models import find_weights
from rasr.prompts import Sidecar, join_prompts
from rasr.refir import Method, Reference, ReferenceFinder
from rasr.retrieval import Retriever

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.01
"""Of a photograph's area; less is no detail taken."""


@hydra.main(version_base="1.3", config_path="conf", config_name="infer")
@entry_point
def main(cfg: DictConfig) -> None:
    if cfg.index is not None and cfg.reference is not None:
        raise RasrError(
            "both index= and reference= are given; give the one that the reference shall come from"
        )
    cfg.weights = str(cfg.weights or find_weights(None))
    output = Path(str(cfg.output))  # a name like 2024 comes as a number
    photographs = list_photographs(Path(str(cfg.input)), output, cfg.split)
    # Wrong values show before the weights are loaded.
    join_prompts("", "", cfg.prompt_from)
    if cfg.conditioning_scale is not None:
        check_number("conditioning_scale", cfg.conditioning_scale)
    if cfg.fusion is not None:
        get_fusion(cfg.fusion)
    if cfg.color_fix is not None:
        get_color_fix(cfg.color_fix)
    # Closed after a failure too: in a sweep the next job opens it again.
    index = nullcontext() if cfg.index is None else Retriever.open(cfg.index, device=cfg.device)
    with index as retriever:
        restore_photographs(cfg, photographs, output, retriever)


def restore_photographs(
    cfg: DictConfig, photographs: Sequence[Photograph], output: Path, retriever: Retriever | None
) -> None:
    """Restores each photograph with what is found for it; those that cannot be read are named at the end."""
    extractor = instantiate(cfg.prompt)
    finder = ReferenceFinder(
        cfg.reference_kind,
        retriever=retriever,
        given=cfg.reference,
        listed={photograph.path: photograph.references for photograph in photographs},
        category=cfg.category,
        k=cfg.references,
        temperature=cfg.temperature,
        max_score=cfg.max_score,
        scale=cfg.scale,
    )
    fallback = instantiate(cfg.fallback)
    method = instantiate(cfg.method)(
        cfg.weights,
        backbone=cfg.backbone,
        osediff_weights=cfg.osediff_weights,
        fusion=cfg.fusion,
        latents=cfg.latents,
        kept=cfg.kept,
        references=0 if finder.is_empty and not fallback.makes_references else cfg.references,
        scale=cfg.scale,
        conditioning_scale=cfg.conditioning_scale,
        color_fix=cfg.color_fix,
        process_size=cfg.process_size,
        tile_size=cfg.tile_size,
        tile_overlap=cfg.tile_overlap,
        device=cfg.device,
    )

    bad, shares = [], []
    with ResultsLog(output, OmegaConf.to_container(cfg, resolve=True)) as results:
        for photograph in tqdm(photographs, desc="restoring", unit="image"):
            path, target = photograph.path, photograph.target
            start = time.perf_counter()
            try:
                own_hash = content_hash(path)
                if results.is_done(target, own_hash):
                    continue
                lq = read_image(path)
                is_told = photograph.prompt and isinstance(extractor, Sidecar)
                lq_prompt = photograph.prompt if is_told else extractor.extract(path)
                found = finder.find(lq, path)
                is_kept = any(method.is_kept(reference) for reference in found)
                traces: dict[tuple[str, ...], Provenance] = {}
                restore = partial(restore_with, method, lq, lq_prompt, cfg.prompt_from, traces)
                sr, used = fallback(restore, lq, found)
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(path))
                continue
            write_png(sr, target)
            record = {"input": str(path), "output": str(target), "content_hash": own_hash}
            record["prompt"] = prompt_with(lq_prompt, used, cfg.prompt_from)
            record["reference"] = used[0].id if used else None
            record[method.kept] = is_kept
            trace = traces.get(ids_of(used))
            if trace is not None:
                record["restored_share"] = round(restored_share(trace), 4)
                shares.append(record["restored_share"])
                if cfg.provenance:
                    picture = output / PROVENANCE_FOLDER / target.relative_to(output)
                    draw_provenance(picture, sr, trace, [reference.read() for reference in used])
            if retriever is not None:
                record["score"] = round(used[0].score, 6) if used and used[0].score is not None else None
            if len(used) > 1:
                record["references"] = {reference.id: round(reference.weight, 6) for reference in used}
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


def restore_with(
    method: Method,
    lq: Tensor,
    lq_prompt: str,
    prompt_from: str,
    traces: dict[tuple[str, ...], Provenance],
    references: Sequence[Reference],
) -> Tensor:
    """The restoration of a photograph with any number of references; `traces` gets its origin."""
    prompt = prompt_with(lq_prompt, references, prompt_from)
    traced: list[Provenance] = []
    sr = method.restore(lq, references, prompt=prompt, traced=traced)
    if traced:
        traces[ids_of(references)] = traced[0]
    return sr


def ids_of(references: Sequence[Reference]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(reference.id for reference in references)


def prompt_with(lq_prompt: str, references: Sequence[Reference], prompt_from: str) -> str:
    """The text of a restoration: the photograph's and that of its best reference."""
    return join_prompts(lq_prompt, references[0].prompt if references else "", prompt_from)


if __name__ == "__main__":
    main()
