"""Groups of which one file holds all options."""

import hydra
import pytest
from hydra.errors import ConfigCompositionException

from rasr.config.options import read_options


@pytest.fixture
def conf(tmp_path):
    files = {
        "main.yaml": "defaults: [{meal: soup}, _self_]\nname: x\n",
        "options/meal.yaml": "_a: &a {warm: true}\nsoup: {kind: '${name}', how: *a}\nbread: {kind: rye}",
        "options/unused.yaml": "- not: a mapping\n",
        "meal/stew.yaml": "kind: stew\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        yield tmp_path


def test_an_entry_is_an_option_beside_those_that_are_files(conf):
    assert hydra.compose("main") == {"meal": {"kind": "x", "how": {"warm": True}}, "name": "x"}
    assert hydra.compose("main", ["meal=bread"]).meal == {"kind": "rye"}
    assert hydra.compose("main", ["meal=stew"]).meal == {"kind": "stew"}
    (conf / "meal" / "bread.yaml").write_text("kind: own\n")
    assert hydra.compose("main", ["meal=bread"]).meal == {"kind": "own"}


def test_an_unknown_option_is_told_the_known_ones(conf):
    for name in ("cake", "_a"):
        with pytest.raises(ConfigCompositionException, match=r"bread\n\tsoup\n\tstew"):
            hydra.compose("main", [f"meal={name}"])


def test_entries_keep_their_interpolations(conf):
    assert read_options(conf / "options" / "meal.yaml") == {
        "soup": {"kind": "${name}", "how": {"warm": True}},
        "bread": {"kind": "rye"},
    }
