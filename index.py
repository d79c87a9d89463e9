"""Build, check and use the reference index of an image database; `python index.py --help` tells more."""

import sys

from rasr.cli import run_command, spell_out_job

JOBS = ("build", "verify", "neighbours", "copy")

if __name__ == "__main__":
    sys.argv[1:] = spell_out_job(sys.argv[1:], JOBS)
    renamed = {"latents": "kept", "latent_size": "kept_size"}
    run_command("index", "rasr.indexing.jobs:run_job", renamed=renamed)
