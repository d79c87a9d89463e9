"""The entry point wrapper, in a real Hydra command run as a user would run it."""

import subprocess
import sys
import textwrap

import pytest
from omegaconf import OmegaConf

from rasr.cli import entry_point
from rasr.errors import RasrError

COMMAND = """
import pathlib
import sys
import hydra
from rasr.cli import entry_point
from rasr.errors import RasrError

class Part:
    def __init__(self, size):
        if size < 0:
            raise RasrError(f"size {size} is negative; give a positive one")

@hydra.main(version_base="1.3", config_path="conf", config_name="command")
@entry_point
def main(cfg):
    \"\"\"The docstring.\"\"\"
    what = cfg.what
    if what == "mistake":
        raise RasrError("a.png: no such file; check the path")
    if what == "worker":
        raise RasrError("Caught in worker 0.\\nTraceback:\\nrasr.errors.RasrError: b.png: is bad; mend it")
    if what == "build":
        hydra.utils.instantiate({"_target_": "__main__.Part", "size": -1})
    if what == "import":
        hydra.utils.instantiate({"_target_": "no.such.thing"})
    if what == "bug":
        raise KeyError("bug of ours")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "lightning":
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    if what == "exit":
        sys.exit(7)
    pathlib.Path(f"done-{what}-{cfg.group.depth}").touch()

if __name__ == "__main__":
    main()
"""

CONFIG = """
what: fine
group:
  depth: 1
hydra:
  run: {dir: .}
  output_subdir: null
"""


@pytest.fixture
def command(tmp_path, repository, monkeypatch):
    """Run a small Hydra command with the given arguments; its folder is `command.folder`."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "command.yaml").write_text(CONFIG)
    (tmp_path / "command.py").write_text(textwrap.dedent(COMMAND))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(*arguments):
        line = [sys.executable, "command.py", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    run.folder = tmp_path
    return run


def test_success_is_exit_code_0(command):
    result = command()
    assert (result.returncode, result.stderr) == (0, "")
    assert (command.folder / "done-fine-1").exists()


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("mistake", "error: a.png: no such file; check the path\n"),
        ("worker", "error: b.png: is bad; mend it\n"),
        ("build", "error: size -1 is negative; give a positive one\n"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(command, what, line):
    result = command(f"what={what}")
    assert (result.returncode, result.stderr, result.stdout) == (2, line, "")


def test_missing_keys_are_all_named(command):
    result = command("what=???", "group.depth=???")
    assert result.returncode == 2
    assert result.stderr.startswith("error: missing keys: group.depth, what; add group.depth=... what=... to")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["interrupt", "lightning"])
def test_interruption_is_exit_code_130(command, what):
    result = command(f"what={what}")
    assert result.returncode == 130
    assert result.stderr == "interrupted; run the same command again to go on\n"


def test_bugs_keep_their_traceback(command):
    result = command("what=bug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "KeyError: 'bug of ours'" in result.stderr


def test_a_target_that_does_not_exist_is_left_to_hydra(command):
    result = command("what=import")
    assert result.returncode == 1
    assert "Error locating target 'no.such.thing'" in result.stderr


def test_other_exit_codes_pass_through(command):
    assert command("what=exit").returncode == 7


def test_typos_are_errors(command):
    result = command("waht=fine")
    assert result.returncode == 1
    assert "Could not override 'waht'" in result.stderr


def test_a_sweep_runs_every_job(command):
    result = command("--multirun", "group.depth=1,2,3", "hydra.sweep.dir=sweep")
    assert result.returncode == 0
    assert sorted(path.name for path in command.folder.glob("done-*")) == [
        f"done-fine-{n}" for n in (1, 2, 3)
    ]


def test_a_sweep_goes_on_after_a_mistake_and_then_fails(command):
    result = command("--multirun", "what=mistake,fine", "hydra.sweep.dir=sweep")
    assert result.returncode == 1
    assert "error: a.png: no such file; check the path" in result.stderr
    assert "Traceback" not in result.stderr
    assert (command.folder / "done-fine-1").exists()


def test_the_wrapped_function_keeps_its_name_and_result():
    @entry_point
    def scored(cfg):
        """Return a score."""
        return cfg.score

    assert (scored.__name__, scored.__doc__) == ("scored", "Return a score.")
    assert scored(OmegaConf.create({"score": 3})) == 3


def test_outside_hydra_a_mistake_still_ends_the_command(capsys):
    @entry_point
    def main(cfg):
        raise RasrError("")

    with pytest.raises(SystemExit) as stopped:
        main(OmegaConf.create({}))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: RasrError\n"
