"""Show what ReFIR sees of a photograph and its reference."""

from omegaconf import DictConfig

from rasr.refir import inspect


def main(cfg: DictConfig) -> None:
    inspect.main(cfg)
