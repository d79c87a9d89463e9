"""Writes docs/code_map.md from the source: `make docs`. Of the project only docs/rooms.py is imported."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs.rooms import FLOORS  # noqa: E402 - started as a file, too

TARGET = ROOT / "docs" / "code_map.md"
MOST_NAMES = 8
COMMANDS = ("train.py", "infer.py", "index.py", "evaluate.py")

HEAD = """\
# Map of the code

Written by `make docs` from the files' own first lines; a test keeps it up to date. Where a new loss, fusion,
encoder, metric or tool goes is in [CONTRIBUTING.md](../CONTRIBUTING.md).

## The rooms

A room imports only what stands below it, and no two files import each other in a circle
(`tests/test_dependency_direction.py`).

```text
{picture}
```
"""


def main() -> None:
    TARGET.write_text(code_map(), encoding="utf-8")


def code_map() -> str:
    """The whole page."""
    parts = [HEAD.format(picture=picture())]
    parts.append("## The commands\n\n" + table([ROOT / name for name in COMMANDS]))
    rooms = sorted(path for path in (ROOT / "rasr").iterdir() if (path / "__init__.py").is_file())
    for room in rooms:
        parts.append(f"## rasr/{room.name}/\n\n{first_line(room / '__init__.py')}\n\n{table(files_of(room))}")
    single = [path for path in sorted((ROOT / "rasr").glob("*.py")) if path.stem != "__init__"]
    parts.append("## rasr/*.py\n\n" + table(single))
    return "\n".join(parts)


def picture() -> str:
    """The floors, the commands on top."""
    width = max(len(line(floor)) for floor in FLOORS)
    lines = [" ".join(COMMANDS), "data/*/prepare.py  benchmarks/  tests/"]
    lines += [line(floor) for floor in reversed(FLOORS)]
    return "\n".join(text.center(width).rstrip() for text in lines)


def line(floor: set[str]) -> str:
    """The names of one floor's rooms; those that are a single file end in .py."""
    return "   ".join(
        f"{name}/" if (ROOT / "rasr" / name).is_dir() else f"{name}.py" for name in sorted(floor)
    )


def files_of(room: Path) -> list[Path]:
    files = [path for path in sorted(room.rglob("*.py")) if not path.stem.startswith("__")]
    return [path for path in files if not is_forwarder(path)]


def is_forwarder(path: Path) -> bool:
    """Whether a file only says the new name of an old command."""
    text = path.read_text("utf-8")
    return "refuse_command(" in text and not public_names(path)


def table(files: list[Path]) -> str:
    rows = [f"| {relative(path)} | {first_line(path)} | {names(path)} |" for path in files]
    return "\n".join(["| file | what | names |", "|---|---|---|", *rows]) + "\n"


def relative(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[2:] if parts[0] == "rasr" and len(parts) > 2 else parts[-1:])


def first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def names(path: Path) -> str:
    found = public_names(path)
    shown = ", ".join(f"`{name}`" for name in found[:MOST_NAMES])
    return shown + (", ..." if len(found) > MOST_NAMES else "")


def public_names(path: Path) -> list[str]:
    """Classes and functions, in the file's order."""
    kinds = ast.ClassDef | ast.FunctionDef
    nodes = ast.parse(path.read_text("utf-8")).body
    return [node.name for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")]


if __name__ == "__main__":
    main()
