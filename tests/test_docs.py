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
    for place in ("fusion/correspondence.py", "register_metric", "register_fusion", "restore_photographs"):
        assert place.split("/")[-1] in text


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
