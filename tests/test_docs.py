"""What the documentation says of the code is so."""

import re

import yaml

import rasr
from docs import make_configuration
from docs.make_code_map import TARGET, code_map


def test_the_map_of_the_code_is_up_to_date():
    assert TARGET.read_text("utf-8") == code_map(), "run make docs"


def test_the_tables_of_keys_are_up_to_date():
    assert make_configuration.TARGET.read_text("utf-8") == make_configuration.page(), "run make docs"


def test_the_map_names_what_people_look_for():
    text = code_map()
    places = ["correspondence.py", "`choose`", "confidence", "register_metric", "register_fusion"]
    for place in [*places, "restore_photographs"]:
        assert place in text


def test_contributing_names_only_what_is_there(repository):
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    paths = re.findall(r"`((?:rasr|conf|tests|docs|benchmarks|weights)/[\w./-]*)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (repository / path).exists()] == []
    for room in ("fusion", "references", "backbones", "indexing", "evaluation"):
        assert f" {room}/" in text


def test_the_citation_is_of_this_version(repository):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == rasr.__version__
    assert {"title", "message", "authors"} <= citation.keys()
    assert [reference["title"].split(":")[0] for reference in citation["references"]] == ["RASR", "ReFIR"]


def test_the_list_of_slow_tests_names_every_file_that_has_some(repository):
    text, folder = (repository / "tests" / "README.md").read_text("utf-8"), repository / "tests"
    marker = "mark." + "slow"  # in two parts, for this file has none
    slow = {path for path in folder.rglob("test_*.py") if marker in path.read_text("utf-8")}
    listed = {folder / name for name in re.findall(r"`([\w/]*test_\w+\.py)`", text)}
    assert sorted(slow - listed) == [] and all(path.is_file() for path in listed)
