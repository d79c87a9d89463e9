"""Restore photographs with the help of retrieved references; `python infer.py --help` tells more."""

import json
import logging
import time
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from rasr.cli import entry_point
from rasr.errors import RasrError
from rasr.image_io import (
    ImageReadError,
    content_hash,
    list_images,
    read_image,
    read_sidecar,
    write_png,
)
from rasr.inference import Restorer
from rasr.models import load_rasr_net
from rasr.prompts import join_prompts
from rasr.retrieval import Hit, Retriever

logger = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="infer")
@entry_point
def main(cfg: DictConfig) -> None:
    if cfg.index is not None and cfg.reference is not None:
        raise RasrError(
            "both index= and reference= are given; give the one that the reference shall come from"
        )
    paths = list_images(cfg.input)
    root = Path(cfg.input) if Path(cfg.input).is_dir() else Path(cfg.input).parent
    if Path(cfg.output).resolve().is_relative_to(root.resolve()) and Path(cfg.input).is_dir():
        raise RasrError(
            f"output={cfg.output} lies inside input={cfg.input}, its PNGs would be restored next time"
        )
    outputs = output_paths(paths, root, Path(cfg.output))
    fixed_ref = None if cfg.reference is None else read_image(cfg.reference)
    extractor = instantiate(cfg.prompt)
    fixed_prompt = "" if cfg.reference is None else read_sidecar(cfg.reference)
    join_prompts("", "", cfg.prompt_from)  # a wrong value shows before the weights are loaded
    retriever = None
    if cfg.index is not None:
        retriever = Retriever.open(cfg.index, device=cfg.device)
    net = load_rasr_net(cfg.weights, backbone=cfg.backbone, osediff_weights=cfg.osediff_weights)
    if net.branch is None and (cfg.index is not None or cfg.reference is not None):
        raise RasrError(
            f"weights={cfg.weights} is a backbone without a reference branch; leave out index= and "
            "reference=, or give the weights of a trained branch"
        )
    restorer = Restorer(
        net,
        scale=cfg.scale,
        conditioning_scale=cfg.conditioning_scale,
        color_fix=cfg.color_fix,
        process_size=cfg.process_size,
        tile_size=cfg.tile_size,
        tile_overlap=cfg.tile_overlap,
        device=cfg.device,
    )

    Path(cfg.output).mkdir(parents=True, exist_ok=True)
    bad = []
    with (Path(cfg.output) / "results.jsonl").open("w") as results:
        for path, target in tqdm(list(zip(paths, outputs, strict=True)), desc="restoring", unit="image"):
            start = time.perf_counter()
            try:
                lq = read_image(path)
                hit = None
                ref = fixed_ref
                ref_prompt = fixed_prompt
                if retriever is not None:
                    hit = retrieve(retriever, lq, path, cfg.category)
                    ref = None if hit is None else read_image(hit.path)
                    ref_prompt = "" if hit is None else hit.prompt
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(path))
                continue
            prompt = join_prompts(extractor.extract(path), ref_prompt, cfg.prompt_from)
            write_png(restorer.restore(lq, ref, prompt=prompt), target)
            record = {"input": str(path), "output": str(target), "prompt": prompt}
            record["reference"] = cfg.reference
            if retriever is not None:
                record["reference"] = None if hit is None else hit.id
                record["score"] = None if hit is None else round(hit.score, 6)
            record["seconds"] = round(time.perf_counter() - start, 4)
            results.write(json.dumps(record) + "\n")
            results.flush()
    logger.info("%d images restored into %s", len(paths) - len(bad), cfg.output)
    if bad:
        raise RasrError(
            f"{len(bad)} of {len(paths)} files could not be read: {', '.join(bad)}; mend or remove them"
        )


def output_paths(paths: list[Path], root: Path, output: Path) -> list[Path]:
    """PNG target of each input; inputs that differ only in their suffix keep it as part of the name."""
    relative = [path.relative_to(root) for path in paths]
    stems = [path.with_suffix("") for path in relative]
    return [
        output / (f"{path}.png" if stems.count(stem) > 1 else f"{stem}.png")
        for path, stem in zip(relative, stems, strict=True)
    ]


def retrieve(retriever: Retriever, lq: Tensor, path: Path, category: str | None) -> Hit | None:
    """The best reference for an image, never the image itself; None if the index offers none."""
    hits = retriever.retrieve(lq, k=1, category=category, exclude_hashes=[content_hash(path)])
    return hits[0] if hits else None


if __name__ == "__main__":
    main()
