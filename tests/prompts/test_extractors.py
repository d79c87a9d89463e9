"""Prompt sources and Table 3's four rows."""

import pytest

from rasr.errors import RasrError
from rasr.prompts import Given, NoPrompt, Sidecar, join_prompts


@pytest.mark.parametrize(
    ("sources", "expected"), [("none", ""), ("lq", "cat"), ("ref", "tabby"), ("lq_ref", "cat, tabby")]
)
def test_rows_of_table_3(sources, expected):
    assert join_prompts("cat", "tabby", sources) == expected


def test_missing_texts_leave_no_comma():
    assert join_prompts("", "tabby", "lq_ref") == "tabby"
    assert join_prompts("cat", "", "lq_ref") == "cat"


def test_unknown_source_is_named():
    with pytest.raises(RasrError, match="prompt_from='both'"):
        join_prompts("a", "b", "both")


def test_extractors(tmp_path):
    (tmp_path / "a.txt").write_text("a cat,\n on a mat \n")
    assert Sidecar().extract(tmp_path / "a.png") == "a cat, on a mat"
    assert Sidecar().extract(tmp_path / "b.png") == ""
    assert NoPrompt().extract(tmp_path / "a.png") == ""
    assert Given("a dog").extract(tmp_path / "a.png") == "a dog"


def test_a_sidecar_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RasrError, match=r"a\.txt: not UTF-8"):
        Sidecar().extract(tmp_path / "a.png")
