"""Moved: `python -m rasr.tools interpolate`."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python scripts/interpolate_backbones.py")
