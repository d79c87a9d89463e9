"""Moved: `python -m rasr.tools preview`."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python -m rasr.data.preview")
