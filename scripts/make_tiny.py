"""Moved: `python -m rasr.tools make_tiny`."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python scripts/make_tiny.py")
