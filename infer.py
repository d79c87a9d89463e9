"""Restore photographs with the help of retrieved references; `python infer.py --help` tells more."""

import sys

import hydra
from omegaconf import DictConfig

from rasr.cli import entry_point, refuse_old_keys

OLD_KEYS = {"latents": "kept", "method.banks": "kept"}


@hydra.main(version_base="1.3", config_path="conf", config_name="infer")
@entry_point
def main(cfg: DictConfig) -> None:
    from rasr.inference.job import infer  # brings torch: --help shall not wait for it

    infer(cfg)


if __name__ == "__main__":
    refuse_old_keys(sys.argv[1:], OLD_KEYS)
    main()
