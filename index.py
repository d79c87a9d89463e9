"""Build, check and use the reference index of an image database; `python index.py --help` tells more."""

import sys

import hydra
from omegaconf import DictConfig

from rasr.cli import entry_point, refuse_old_keys, spell_out_job

JOBS = ("build", "verify", "neighbours", "copy")
OLD_KEYS = {"latents": "kept", "latent_size": "kept_size"}


@hydra.main(version_base="1.3", config_path="conf", config_name="index")
@entry_point
def main(cfg: DictConfig) -> None:
    from rasr.indexing.jobs import run_job  # brings torch: --help shall not wait for it

    run_job(cfg)


if __name__ == "__main__":
    sys.argv[1:] = spell_out_job(sys.argv[1:], JOBS)
    refuse_old_keys(sys.argv[1:], OLD_KEYS)
    main()
