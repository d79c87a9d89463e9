"""Moved: `python -m rasr.tools degrade`."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python -m rasr.data.degrade")
