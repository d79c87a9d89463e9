"""Show what ReFIR sees of a photograph and its reference."""

import logging
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from rasr.image_io import content_hash, read_image, read_sidecar
from rasr.inference import Restorer
from rasr.references import Reference
from rasr.refir.chain_net import ChainNet
from rasr.refir.probe import Probe, draw_seen

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    lq, ref = read_image(cfg.input), read_image(cfg.reference)
    net = instantiate(cfg.method)(cfg.weights, backbone=cfg.backbone, osediff_weights=cfg.osediff_weights)
    restorer = Restorer(
        net,
        scale=cfg.scale,
        conditioning_scale=cfg.conditioning_scale,
        tile_size=None,
        device=cfg.device,
    )
    reference = Reference(
        cfg.reference, lambda: ref, read_sidecar(cfg.reference), key=content_hash(cfg.reference)
    )
    unet = net.chain.unet if isinstance(net, ChainNet) else net.backbone.unet
    with Probe(unet) as probe:
        sr = restorer.restore(lq, reference, prompt=cfg.prompt)
    draw_seen(probe, lq, ref, sr, Path(cfg.output))
    logger.info("what was seen of %s and %s is in %s", cfg.input, cfg.reference, cfg.output)
