"""Who may import whom: read from the source, so that a lazy import inside a function counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from docs.rooms import FLOORS, WITHIN

MAX_LINES = {"rasr": 300, "": 400}
"""Of a file, by its top folder; "" is every other."""

COMMANDS = {"train", "infer", "evaluate", "index"}
CONFIG_LIBRARIES = {"hydra", "omegaconf"}
CONFIG_ROOMS = {"composing", "config", "training", "cli", "tools"}
TRAINING_LIBRARIES = {"pytorch_lightning", "lightning", "wandb"}
LIGHTNING_FILES = {"rasr/data/datamodule.py", "rasr/evaluation/job.py"}  # the second logs to wandb


def room_of(name: str) -> str | None:
    """The package (or module) of `rasr` in a dotted name: rasr.data.dataset -> data."""
    parts = name.split(".")
    return parts[1] if parts[0] == "rasr" and len(parts) > 1 else None


def floor_of(room: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def module_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path, root: Path) -> set[str]:
    """Absolute names of all that a file imports, at any depth; `from a import b` gives `a` and `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(root).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def is_command(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text("utf-8")


def may_know(room: str, other: str) -> bool:
    here, there = floor_of(room), floor_of(other)
    return there is not None and (there < here or (room, other) in WITHIN or (other, room) in WITHIN)


def violations(root: Path) -> list[str]:
    """Every import of rasr/ that points the wrong way."""
    found = []
    for path in sorted((root / "rasr").rglob("*.py")):
        here, module = path.relative_to(root).as_posix(), module_of(path, root)
        if module == "rasr":
            continue
        room = room_of(module)
        if floor_of(room) is None:
            found.append(f"{here}: unknown part of rasr; say in this test what it may import")
            continue
        names = imported_modules(path, root)
        rooms = {room_of(name) for name in names} - {None, room, "__version__"}
        allowed = {"cli"} if is_command(path) else set()
        wrong = sorted(other for other in rooms - allowed if not may_know(room, other))
        found += [f"{here} imports rasr.{other}" for other in wrong]

        forbidden = set(COMMANDS)
        reads_config = path.stem in ("job", "jobs") or room in CONFIG_ROOMS
        if not reads_config and not is_command(path):
            forbidden |= CONFIG_LIBRARIES
        if room != "training" and here not in LIGHTNING_FILES:
            forbidden |= TRAINING_LIBRARIES
        if path.name != "basicsr_compat.py":
            forbidden |= {"basicsr"}
        libraries = {name.split(".")[0] for name in names}
        found += [f"{here} imports {library}" for library in sorted(libraries & forbidden)]
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of rasr/ whose files it imports."""
    files = {module_of(path, root): path for path in (root / "rasr").rglob("*.py")}
    return {
        module: {name for name in imported_modules(path, root) if name in files} - {module}
        for module, path in files.items()
    }


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """A chain of modules that ends where it began; empty if there is none."""
    done: set[str] = set()

    def walk(module: str, chain: list[str]) -> list[str]:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if circle := walk(other, [*chain, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := walk(module, []))), [])


def test_imports_point_one_way(repository):
    assert violations(repository) == []


def test_no_circle_between_files(repository):
    circle = find_circle(import_graph(repository))
    assert not circle, " -> ".join(circle)


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("rasr/losses/a.py", "from rasr.models.rasr_net import X", "rasr/losses/a.py imports rasr.models"),
        ("rasr/losses/a.py", "def f():\n    import rasr.data", "rasr/losses/a.py imports rasr.data"),
        ("rasr/losses/a.py", "from ..models import x", "rasr/losses/a.py imports rasr.models"),
        ("rasr/losses/a.py", "from rasr import models", "rasr/losses/a.py imports rasr.models"),
        ("rasr/retrieval/a.py", "from rasr.data import x", "rasr/retrieval/a.py imports rasr.data"),
        ("rasr/models/a.py", "from rasr.training import x", "rasr/models/a.py imports rasr.training"),
        ("rasr/models/a.py", "from omegaconf import DictConfig", "rasr/models/a.py imports omegaconf"),
        ("rasr/models/a.py", "import pytorch_lightning as pl", "rasr/models/a.py imports pytorch_lightning"),
        ("rasr/inference/a.py", "import hydra.utils", "rasr/inference/a.py imports hydra"),
        ("rasr/inference/a.py", "import rasr.evaluation", "rasr/inference/a.py imports rasr.evaluation"),
        ("rasr/data/a.py", "import basicsr.data", "rasr/data/a.py imports basicsr"),
        ("rasr/degradation/a.py", "import rasr.data", "rasr/degradation/a.py imports rasr.data"),
        ("rasr/retrieval/a.py", "import rasr.tools", "rasr/retrieval/a.py imports rasr.tools"),
        ("rasr/data/a.py", "import pytorch_lightning", "rasr/data/a.py imports pytorch_lightning"),
        ("rasr/data/a.py", "import rasr.cli", "rasr/data/a.py imports rasr.cli"),
        ("rasr/training/a.py", "import train", "rasr/training/a.py imports train"),
        ("rasr/image_io.py", "import rasr.data", "rasr/image_io.py imports rasr.data"),
        (
            "rasr/utils/a.py",
            "import os",
            "rasr/utils/a.py: unknown part of rasr; say in this test what it may import",
        ),
    ],
)
def test_the_reader_sees_a_wrong_import(tmp_path, path, line, expected):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line + "\n")
    assert violations(tmp_path) == [expected]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("rasr/degradation/basicsr_compat.py", "import basicsr.data"),
        ("rasr/data/datamodule.py", "import pytorch_lightning"),
        ("rasr/inference/job.py", "import hydra.utils"),
        (
            "rasr/training/a.py",
            "import hydra, pytorch_lightning\nfrom rasr.evaluation import x\nimport rasr.data",
        ),
        ("rasr/retrieval/a.py", "from rasr.image_io import read_image\nfrom rasr.retrieval.index import x"),
        ("rasr/retrieval/a.py", "from . import index\nfrom .. import errors\nfrom rasr import __version__"),
        ("rasr/models/a.py", 'if __name__ == "__main__":\n    import rasr.cli'),
    ],
)
def test_the_reader_lets_right_imports_pass(tmp_path, path, line):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line + "\n")
    assert violations(tmp_path) == []


def test_the_reader_sees_a_circle_of_files(tmp_path):
    """Through a lazy import, a relative one and one for type checkers only."""
    texts = {
        "a": "def f():\n    from rasr.room.b import x",
        "b": "from . import c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rasr.room.a",
        "d": "import rasr.room.a",
    }
    (tmp_path / "rasr" / "room").mkdir(parents=True)
    for name, text in texts.items():
        (tmp_path / "rasr" / "room" / f"{name}.py").write_text(text + "\n")
    chain = ["rasr.room.a", "rasr.room.b", "rasr.room.c", "rasr.room.a"]
    assert find_circle(import_graph(tmp_path)) == chain
    (tmp_path / "rasr" / "room" / "c.py").write_text("")
    assert find_circle(import_graph(tmp_path)) == []


def project_files(repository: Path) -> list[Path]:
    folders = [repository / name for name in ("rasr", "data", "scripts", "tests", "benchmarks")]
    return [*repository.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


def test_files_stay_short(repository):
    long = {}
    for path in project_files(repository):
        name = path.relative_to(repository)
        length = len(path.read_text("utf-8").splitlines())
        if length > MAX_LINES.get(name.parts[0], MAX_LINES[""]) and name.parts[0] != "benchmarks":
            long[name.as_posix()] = length
    assert long == {}


def test_no_wildcard_imports(repository):
    starred = [str(path) for path in project_files(repository) if " import *" in imports_of(path)]
    assert starred == []


def imports_of(path: Path) -> str:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


IMPORT_ALL = """
import importlib, logging, sys

import rasr
heavy = {"torch", "numpy", "PIL", "hydra"} & set(sys.modules)
assert not heavy, f"import rasr brings {heavy}"

import torch
state = torch.get_rng_state()
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {error!r}")
assert not failed, failed
assert torch.equal(state, torch.get_rng_state()), "an import drew random numbers"
assert not torch.cuda.is_initialized(), "an import touched the GPU"
assert not logging.getLogger("rasr").handlers, "an import set up logging"
from hydra.core.global_hydra import GlobalHydra
assert not GlobalHydra.instance().is_initialized(), "an import initialised Hydra"
"""


def test_every_module_imports_without_side_effects(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    files = sorted((repository / "rasr").rglob("*.py"))
    names = [".".join(path.relative_to(repository).with_suffix("").parts) for path in files]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
