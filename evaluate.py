"""Measure, compare and tabulate restored images; `python evaluate.py --help` tells more."""

import sys

from rasr.cli import rename_keys, run_command, spell_out_job

JOBS = ("score", "compare", "table", "complexity", "report")

if __name__ == "__main__":
    arguments = rename_keys(sys.argv[1:], {"methods": "baselines"})
    arguments = ["job=report" if argument == "report_only=true" else argument for argument in arguments]
    sys.argv[1:] = spell_out_job(arguments, JOBS)
    run_command("evaluate", "rasr.evaluation.job:run_job")
