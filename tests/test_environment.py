"""The files around the code agree with one another."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there


@pytest.fixture
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def conda(repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text("utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    return [entry for entry in environment["dependencies"] if isinstance(entry, str)], pip


def normal(requirement):
    """("name", {specifiers}): the order of the specifiers and the blanks do not count."""
    name, specifiers = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", requirement).groups()
    return name.lower().replace("_", "-"), frozenset(specifiers.replace(" ", "").split(","))


def test_environment_has_the_pins_of_pyproject(project, conda):
    wanted = {normal(entry) for entry in project["dependencies"] + project["optional-dependencies"]["test"]}
    pip = conda[1]
    assert "-e ." in pip
    assert {normal(entry) for entry in pip if entry != "-e ."} == wanted


def test_environment_has_the_python_of_pyproject(project, conda):
    assert normal("python" + project["requires-python"]) in {normal(entry) for entry in conda[0]}
    assert "pip" in conda[0]


def test_withdrawn_lightning_releases_are_excluded(project):
    specifiers = dict(normal(entry) for entry in project["dependencies"])["pytorch-lightning"]
    assert {"!=2.6.2", "!=2.6.3"} <= specifiers


def test_changelog_names_the_version_and_what_is_unreleased(repository):
    import rasr

    headings = re.findall(r"^## \[(.+?)\]", (repository / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(headings) == 1 or headings[1] == rasr.__version__


def test_licence_is_apache(repository, project):
    text = (repository / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_pre_commit_runs_the_linter_that_the_tests_pin(repository, project):
    config = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = {hook["id"]: repo["rev"] for repo in config["repos"] for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "check-yaml", "check-added-large-files"} <= hooks.keys()
    pinned = dict(normal(entry) for entry in project["optional-dependencies"]["test"])["ruff"]
    low, high = (next(s[len(sign) :] for s in pinned if s.startswith(sign)) for sign in (">=", "<"))

    def key(version):
        return [int(part) for part in version.lstrip("v").split(".")][:2]

    assert key(low) <= key(hooks["ruff-check"]) < key(high)


def test_continuous_integration_is_runnable(repository):
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "make lint test" in script.read_text("utf-8")


def fake_python(path, version):
    """A `python` that believes to be another version."""
    code = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$2"\n')
    path.chmod(0o755)
    return path


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("version", [(3, 9), (3, 13), (4, 0)])
def test_make_refuses_other_pythons_in_one_line(repository, tmp_path, version):
    (tmp_path / "Makefile").write_bytes((repository / "Makefile").read_bytes())
    (tmp_path / "pyproject.toml").touch()
    python = fake_python(tmp_path / "python", (*version, 0, "final", 0))
    result = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    mend = "RASR needs 3.10 to 3.12: make test PYTHON=python3.11"
    assert lines == [f"error: {python} is Python {version[0]}.{version[1]}; {mend}"]
    assert not (tmp_path / ".venv").exists()
