"""Write a random small backbone as a diffusers-format directory: for tests, and to compare with."""

from omegaconf import DictConfig

from rasr.models import make_tiny_backbone


def main(cfg: DictConfig) -> None:
    make_tiny_backbone(cfg.seed).save_pretrained(str(cfg.output))
