"""Restore photographs with the help of retrieved references; `python infer.py --help` tells more."""

from rasr.cli import run_command

if __name__ == "__main__":
    run_command("infer", "rasr.inference.job:infer", renamed={"latents": "kept", "method.banks": "kept"})
