"""Convert OSEDiff's osediff.pkl to safetensors, which holds nothing that could be run."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from rasr.backbones.osediff_weights import OSEDiffWeights, read_osediff, save_osediff
from rasr.errors import RasrError
from rasr.image_io import content_hash

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    source, target = Path(str(cfg.source)), Path(str(cfg.target))
    if source.resolve() == target.resolve():
        raise RasrError(f"{target} is both source and target; give another name for the target")
    weights = read_osediff(source)
    save_osediff(weights, target)
    for path in (source, target):
        logger.info("%s  %s", content_hash(path), path)
    for name, count in count_parameters(weights).items():
        logger.info("%s: %s parameters", name, f"{count:,}")


def count_parameters(weights: OSEDiffWeights) -> dict[str, int]:
    """Parameters of each part of the file."""
    counts = {"UNet LoRA": 0, "UNet conv_in": 0, "VAE LoRA": 0}
    for name, tensor in weights.state_dict_unet.items():
        counts["UNet LoRA" if "lora" in name else "UNet conv_in"] += tensor.numel()
    counts["VAE LoRA"] = sum(tensor.numel() for tensor in weights.state_dict_vae.values())
    return counts | {"all": sum(counts.values())}
