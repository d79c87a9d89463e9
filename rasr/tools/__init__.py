"""The small commands, all called in one way: `python -m rasr.tools NAME key=value`.

Each is one module here, with a one-line docstring and `main(cfg)`, and its keys in conf/tools/NAME.yaml.
"""

import ast
import difflib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

USAGE = """Small commands of RASR:

  python -m rasr.tools NAME key=value ...

{names}

`python -m rasr.tools NAME --help` explains one. train.py, infer.py, index.py and evaluate.py are the others.
"""


def list_tools() -> dict[str, str]:
    """{name: what it does}; read from the files, so that nothing heavy is imported."""
    files = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith("__"))
    return {path.stem: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in files}


def run(arguments: list[str]) -> None:
    """Does what the command line says.

    Args:
        arguments: the tool's name and its keys; none, or --help, lists the tools.
    """
    tools = list_tools()
    name, *keys = arguments or ["--help"]
    if name in ("--help", "-h"):
        width = max(map(len, tools))
        names = "\n".join(f"  {tool:{width}}  {text}" for tool, text in tools.items())
        print(USAGE.format(names=names), end="")  # noqa: T201
    elif name in tools:
        _run_tool(name, keys)
    else:
        near = difflib.get_close_matches(name, tools, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(tools)}"
        print(f"error: {name} is no tool; {hint}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _run_tool(name: str, keys: list[str]) -> None:
    from rasr.cli import run_command

    sys.argv = [f"{sys.argv[0]} {name}", *keys]
    run_command(f"tools/{name}", f"rasr.tools.{name}:main")
