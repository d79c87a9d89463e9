"""Compute once what the one-step backbone makes of every image of a reference index."""

from omegaconf import DictConfig

from rasr.refir import keep_banks


def main(cfg: DictConfig) -> None:
    keep_banks.main(cfg)
