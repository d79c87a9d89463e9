"""Train RASRNet; `python train.py --help` tells more."""

from rasr.cli import run_command

if __name__ == "__main__":
    run_command("train", "rasr.training.job:train")
