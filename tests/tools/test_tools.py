"""`python -m rasr.tools`: the list of the small commands, and what all of them have in common."""

import subprocess
import sys
import time

import pytest

from rasr.moved import MOVED_COMMANDS
from rasr.tools import list_tools
from tests.helpers import REPOSITORY, run_entry, run_tool

TOOLS = [
    "convert_osediff",
    "degrade",
    "gallery",
    "inspect",
    "interpolate",
    "keep",
    "make_pretrained",
    "make_tiny",
    "preview",
]

LIST = """
import runpy, sys
runpy.run_module("rasr.tools", run_name="__main__", alter_sys=True)
assert not {"torch", "numpy", "hydra"} & set(sys.modules)
"""


def test_the_list_names_every_tool_and_is_quick():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", LIST, "--help"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    seconds = time.perf_counter() - start
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")][1:]
    assert listed == [list(pair) for pair in list_tools().items()]
    assert seconds < 3  # 0.1 alone; other tests may run beside it
    assert run_tool("--help").stdout == run_tool("-h").stdout == done.stdout


def test_a_tool_is_a_file_with_one_line_and_a_yaml(compose):
    assert list(list_tools()) == TOOLS
    assert {path.stem for path in (REPOSITORY / "conf" / "tools").glob("*.yaml")} == set(TOOLS)
    for name, text in list_tools().items():
        assert text.endswith(".") and "\n" not in text
        cfg = compose(config_name=f"tools/{name}", return_hydra_config=True)
        assert cfg.hydra.help.header == text
        assert cfg.hydra.help.app_name == f"python -m rasr.tools {name}"


def test_no_command_hides_elsewhere():
    """What can be started in the package is the list, an old spelling, or in the list under another name."""
    texts = {
        path.relative_to(REPOSITORY).as_posix(): path.read_text("utf-8")
        for path in (REPOSITORY / "rasr").rglob("*.py")
    }
    starts = {name for name, text in texts.items() if '__name__ == "__main__"' in text}
    starts -= {name for name, text in texts.items() if "refuse_command" in text}
    assert starts <= {"rasr/tools/__main__.py", "rasr/refir/keep_banks.py", "rasr/refir/inspect.py"}


@pytest.mark.parametrize("name", TOOLS)
def test_help_says_what_it_does(name):
    done = run_tool(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(list_tools()[name] + "\n")
    assert f"python -m rasr.tools {name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["degade"], "error: degade is no tool; did you mean degrade?"),
        (["x"], f"error: x is no tool; give one of {', '.join(TOOLS)}"),
        (["keep"], "error: missing keys: index, kept, weights; add index=... kept=... weights=..."),
        (["keep", "index=none", "weights=w", "kept=b"], "error: none"),
        (["inspect", "input=none.png", "reference=b", "weights=c", "output=d.png"], "error: none.png"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, line):
    done = run_tool(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("old", MOVED_COMMANDS)
def test_an_old_spelling_names_the_new_one(old):
    file = old.removeprefix("python ").removeprefix("-m ")
    done = run_entry(file if file.endswith(".py") else f"{file.replace('.', '/')}.py", "--anything", "x")
    new = MOVED_COMMANDS[old]
    assert (done.returncode, done.stderr) == (2, f"error: {old} is now python -m rasr.tools {new}\n")


def test_the_keys_of_a_new_spelling_exist(compose):
    for new in MOVED_COMMANDS.values():
        name, *keys = new.split()
        cfg = compose(config_name=f"tools/{name}")
        for key in keys:
            group, _, rest = key.split("=")[0].partition(".")
            assert group in list(cfg) and (not rest or rest in list(cfg[group]))
