"""Restore photographs with the help of retrieved references; `python infer.py --help` tells more."""

import logging
import time
from functools import lru_cache
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
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
from rasr.inference import ReferenceLatents, Restorer, ResultsLog, output_paths
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
    read_reference = lru_cache(maxsize=1)(read_image)  # one reference for all photographs is read once
    given = None if cfg.reference is None else given_reference(Path(cfg.reference))
    if given is not None:
        read_reference(given.path)
    extractor = instantiate(cfg.prompt)
    join_prompts("", "", cfg.prompt_from)  # a wrong value shows before the weights are loaded
    latents = None if cfg.latents is None else ReferenceLatents.open(cfg.latents)
    retriever = None if cfg.index is None else Retriever.open(cfg.index, device=cfg.device)
    net = load_rasr_net(cfg.weights, backbone=cfg.backbone, osediff_weights=cfg.osediff_weights)
    if net.branch is None and (retriever is not None or given is not None):
        raise RasrError(
            f"weights={cfg.weights} is a backbone without a reference branch; leave out index= and "
            "reference=, or give the weights of a trained branch"
        )
    if latents is not None:
        if retriever is None and given is None:
            raise RasrError(f"latents={cfg.latents} are of references; give index= or reference= too")
        latents.check_vae(net.branch.vae)
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

    bad = []
    with ResultsLog(cfg.output, OmegaConf.to_container(cfg, resolve=True)) as results:
        for path, target in tqdm(list(zip(paths, outputs, strict=True)), desc="restoring", unit="image"):
            start = time.perf_counter()
            try:
                own_hash = content_hash(path)
                if results.is_done(target, own_hash):
                    continue
                lq = read_image(path)
                hit = given if retriever is None else retrieve(retriever, lq, own_hash, cfg.category)
                z_ref = None if latents is None or hit is None else latents.get(hit.content_hash)
                ref = None if hit is None or z_ref is not None else read_reference(hit.path)
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(path))
                continue
            ref_prompt = "" if hit is None else hit.prompt
            prompt = join_prompts(extractor.extract(path), ref_prompt, cfg.prompt_from)
            write_png(restorer.restore(lq, ref, ref_latents=z_ref, prompt=prompt), target)
            record = {"input": str(path), "output": str(target), "content_hash": own_hash, "prompt": prompt}
            record["reference"] = None if hit is None else hit.id
            record["latents"] = z_ref is not None
            if retriever is not None:
                record["score"] = None if hit is None else round(hit.score, 6)
            record["seconds"] = round(time.perf_counter() - start, 4)
            results.add(record)
    logger.info("%d images restored into %s", len(paths) - len(bad), cfg.output)
    if bad:
        raise RasrError(
            f"{len(bad)} of {len(paths)} files could not be read: {', '.join(bad)}; mend or remove them"
        )


def given_reference(path: Path) -> Hit:
    """The user's own reference in the form of one that was found."""
    return Hit(str(path), 1.0, path, "", read_sidecar(path), content_hash(path))


def retrieve(retriever: Retriever, lq: Tensor, own_hash: str, category: str | None) -> Hit | None:
    """The best reference for an image, never the image itself; None if the index offers none."""
    hits = retriever.retrieve(lq, k=1, category=category, exclude_hashes=[own_hash])
    return hits[0] if hits else None


if __name__ == "__main__":
    main()
