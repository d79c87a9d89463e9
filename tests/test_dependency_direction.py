"""Who may import whom: read from the source, so that a lazy import inside a function counts too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

MAX_LINES = 400

FOUNDATION = {"checks", "device", "errors", "image_io", "image_ops", "lazy", "moved", "pretrained"}
# What each package may import besides itself and the foundation.
ALLOWED = {
    "data": set(),
    "degradation": {"data"},
    "preparation": {"degradation", "data"},
    "losses": set(),
    # Two rooms of one house: a fusion is made of a backbone's parts, the net of a backbone and a fusion.
    "fusion": {"models"},
    "models": {"fusion"},
    "prompts": set(),
    "retrieval": {"prompts"},
}
# May import all of the above and one another, without cycles.
UPPER = {"training", "inference", "evaluation", "refir"}
# On top of everything: the small commands.
TOP = {"tools"}
COMMANDS = {"train", "infer", "evaluate", "index"}

CONFIG_LIBRARIES = {"hydra", "omegaconf"}
TRAINING_LIBRARIES = {"pytorch_lightning", "lightning", "wandb"}


def room_of(path: Path, root: Path) -> str:
    """The package (or module) of `rasr` that a file belongs to: rasr/data/dataset.py -> data."""
    return path.relative_to(root / "rasr").parts[0].removesuffix(".py")


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


def violations(root: Path) -> list[str]:
    """Every import of rasr/ that points the wrong way."""
    found = []
    uppers: dict[str, set[str]] = {}
    for path in sorted((root / "rasr").rglob("*.py")):
        here, room = path.relative_to(root).as_posix(), room_of(path, root)
        names = imported_modules(path, root)
        libraries = {name.split(".")[0] for name in names}
        rooms = {name.split(".")[1] for name in names if name.startswith("rasr.")} - {room, "__version__"}

        allowed = set(FOUNDATION)
        if room in FOUNDATION | {"__init__"}:
            allowed = {"errors"}
        elif room in UPPER:
            allowed |= ALLOWED.keys() | UPPER
            uppers.setdefault(room, set()).update(rooms & UPPER)
        elif room in ALLOWED:
            allowed |= ALLOWED[room]
        elif room in TOP:
            allowed |= ALLOWED.keys() | UPPER | {"cli"}
        elif room == "cli":
            pass
        else:
            found.append(f"{here}: unknown part of rasr; say in this test what it may import")
            continue
        if is_command(path):
            allowed |= {"cli"}
        found += [f"{here} imports rasr.{other}" for other in sorted(rooms - allowed)]

        forbidden = set(COMMANDS)
        if room not in {"training", "cli"} | TOP and not is_command(path):
            forbidden |= CONFIG_LIBRARIES
        if room != "training" and here != "rasr/data/datamodule.py":
            forbidden |= TRAINING_LIBRARIES
        if here != "rasr/degradation/basicsr_compat.py":
            forbidden |= {"basicsr"}
        found += [f"{here} imports {library}" for library in sorted(libraries & forbidden)]
    found += [
        f"{a} and {b} import each other"
        for a in uppers
        for b in uppers[a]
        if a < b and a in uppers.get(b, ())
    ]
    return found


def test_imports_point_one_way(repository):
    assert violations(repository) == []


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("rasr/losses/a.py", "from rasr.models.backbone import X", "rasr/losses/a.py imports rasr.models"),
        ("rasr/losses/a.py", "def f():\n    import rasr.data", "rasr/losses/a.py imports rasr.data"),
        ("rasr/losses/a.py", "from ..models import x", "rasr/losses/a.py imports rasr.models"),
        ("rasr/losses/a.py", "from rasr import models", "rasr/losses/a.py imports rasr.models"),
        ("rasr/retrieval/a.py", "from rasr.data import x", "rasr/retrieval/a.py imports rasr.data"),
        ("rasr/models/a.py", "from rasr.training import x", "rasr/models/a.py imports rasr.training"),
        ("rasr/models/a.py", "from omegaconf import DictConfig", "rasr/models/a.py imports omegaconf"),
        ("rasr/models/a.py", "import pytorch_lightning as pl", "rasr/models/a.py imports pytorch_lightning"),
        ("rasr/inference/a.py", "import hydra.utils", "rasr/inference/a.py imports hydra"),
        ("rasr/data/a.py", "import basicsr.data", "rasr/data/a.py imports basicsr"),
        ("rasr/data/a.py", "import rasr.degradation", "rasr/data/a.py imports rasr.degradation"),
        ("rasr/data/a.py", "import rasr.preparation.jobs", "rasr/data/a.py imports rasr.preparation"),
        (
            "rasr/degradation/a.py",
            "import rasr.preparation.jobs",
            "rasr/degradation/a.py imports rasr.preparation",
        ),
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


def test_the_reader_sees_a_cycle(tmp_path):
    for one, other in (("training", "evaluation"), ("evaluation", "training")):
        (tmp_path / "rasr" / one).mkdir(parents=True)
        (tmp_path / "rasr" / one / "a.py").write_text(f"import rasr.{other}\n")
    assert violations(tmp_path) == ["evaluation and training import each other"]


def project_files(repository: Path) -> list[Path]:
    folders = [repository / name for name in ("rasr", "data", "scripts", "tests")]
    return [*repository.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


def test_files_stay_short(repository):
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in project_files(repository)}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


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
