"""Make one folder of a training's result, for others to load by its path or hub id."""

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from rasr.errors import RasrError
from rasr.models import RASRNet, load_rasr_net, upload_folder
from rasr.models.pretrained_folder import CARD_FILE, check_is_no_file
from rasr.pretrained import is_hub_id

logger = logging.getLogger(__name__)

DTYPES = ("float16", "bfloat16", "float32")


def main(cfg: DictConfig) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    files = [cfg.weights] if isinstance(cfg.weights, str | int) else list(cfg.weights)
    files, output = [str(file) for file in files], Path(str(cfg.output))
    if not files:
        raise RasrError("weights=[] names no weights; give at least one file")
    if cfg.dtype not in DTYPES:
        raise RasrError(f"dtype={cfg.dtype} is unknown; give one of {', '.join(DTYPES)}")
    check_is_no_file(output)  # before the weights are loaded
    if cfg.push_to_hub is not None and not is_hub_id(cfg.push_to_hub):
        raise RasrError(f"push_to_hub={cfg.push_to_hub!r} is no hub id; give owner/name")
    card = output / CARD_FILE
    kept = " (it was there before: see that it still fits)" if card.exists() else ""
    nets = [load_rasr_net(weights, backbone=cfg.backbone, merge=False) for weights in files]
    for weights, net in zip(files[1:], nets[1:], strict=True):
        check_shares_backbone(net, nets[0], weights)
    dtype = getattr(torch, cfg.dtype)
    nets[0].save_pretrained(output, dtype=dtype)
    for net in nets[1:]:
        net.save_fusion(output, dtype=dtype)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    logger.info("%s: %.1f MB; its model card: %s%s", output, size / 1e6, card, kept)
    if cfg.push_to_hub:
        logger.info("%s", upload_folder(output, cfg.push_to_hub, private=cfg.private or None))


def check_shares_backbone(net: RASRNet, first: RASRNet, weights: str) -> None:
    """Raises a RasrError unless a further net has a fusion over the first net's backbone."""
    if net.fusion is None:
        raise RasrError(f"weights={weights} holds no fusion; give it first, or leave it out")
    if first.fusion is not None and first.fusion.name == net.fusion.name:
        raise RasrError(f"weights={weights} holds a second fusion {net.fusion.name}; give one of each")
    ours, theirs = net.backbone.state_dict(), first.backbone.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise RasrError(f"weights={weights} is over another backbone than the first; train it over that one")
