"""Moved: `python -m rasr.tools convert_osediff`."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python scripts/convert_osediff.py")
