"""The earlier name of a tool; `python -m rasr.refir.inspect` says the new one."""

from rasr.moved import refuse_command

if __name__ == "__main__":
    refuse_command("python -m rasr.refir.inspect")
