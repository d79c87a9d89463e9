"""Train RASRNet; `python train.py --help` tells more."""

import hydra
from omegaconf import DictConfig

from rasr.cli import entry_point


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@entry_point
def main(cfg: DictConfig) -> None:
    from rasr.training.job import train  # brings torch: --help shall not wait for it

    train(cfg)


if __name__ == "__main__":
    main()
