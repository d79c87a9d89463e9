"""Every file under conf/ composes, and a misspelt key is an error wherever it is written."""

import inspect
from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from rasr.config import commands
from rasr.config.keys import specs_of
from rasr.config.options import read_options

CONF = Path(__file__).resolve().parent.parent / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if (CONF.parent / f"{path.stem}.py").is_file())
ENTRIES = [*COMMANDS, *sorted(f"tools/{path.stem}" for path in CONF.glob("tools/*.yaml"))]
# ("model", "tiny") for conf/model/tiny.yaml; machine-local files are nobody else's business, and tools and
# hydra no choice of the user.
OPTIONS = sorted(
    [
        (path.parent.relative_to(CONF).as_posix(), path.stem)
        for path in CONF.rglob("*/*.yaml")
        if path.relative_to(CONF).parts[0] not in ("local", "tools", "hydra", "options")
    ]
    + [(path.stem, option) for path in CONF.glob("options/*.yaml") for option in read_options(path)]
)


@cache
def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text("utf-8")) or {}


def groups_in_defaults(path: Path) -> dict[str, str]:
    """The {group: option} of a file's defaults list, without its Hydra overrides."""
    groups = {}
    for item in read(path).get("defaults", []):
        if isinstance(item, str) and item != "_self_":  # a neighbour that it builds on
            near = CONF if item.startswith("/") else path.parent
            groups |= groups_in_defaults(near / f"{item.lstrip('/')}.yaml")
        if isinstance(item, dict):
            ((key, option),) = item.items()
            group = key.split("@")[0].split()[-1].lstrip("/")
            if not group.startswith("hydra/"):
                groups[group] = option
    return groups


def entries_with(group: str, option: str = "") -> list[str]:
    """Entry points that have the group; of an experiment those whose other groups it overrides."""
    entries = {entry: groups_in_defaults(CONF / f"{entry}.yaml") for entry in ENTRIES}
    needed = {group}
    if group == "experiment" and option:
        needed |= set(groups_in_defaults(CONF / group / f"{option}.yaml"))
    return [entry for entry, groups in entries.items() if needed <= set(groups)]


def key_paths(node, prefix="") -> set[str]:
    """Dotted paths of the leaves; an empty mapping is a leaf."""
    if not isinstance(node, dict) or not node:
        return {prefix} if prefix else set()
    return set().union(*(key_paths(value, f"{prefix}.{key}".lstrip(".")) for key, value in node.items()))


def class_keys(body: dict) -> set[str]:
    """What the class that a preset names for `module` takes, if it names one."""
    if "_target_" not in body.get("module", {}):
        return set()
    return {f"module.{name}" for name in inspect.signature(get_class(body["module"]["_target_"])).parameters}


def resolve(cfg: DictConfig) -> None:
    """Resolve every interpolation, with a text in place of the keys that the user must give."""
    for key in OmegaConf.missing_keys(cfg):
        if not key.startswith("hydra."):
            OmegaConf.update(cfg, key, "given")
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


RUNTIME = [
    "hydra.runtime.output_dir=outputs/here",
    "hydra.runtime.cwd=.",
    "hydra.job.num=0",
    "hydra.job.id=0",
]


@pytest.fixture
def compose_and_resolve(compose):
    def run(entry, *overrides):
        cfg = compose([*overrides, *RUNTIME], config_name=entry, return_hydra_config=True)
        resolve(cfg)

    yield run
    HydraConfig.instance().cfg = None


def test_there_is_something_to_test():
    assert "evaluate" in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_composes(compose_and_resolve, entry):
    compose_and_resolve(entry)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_with_every_entry_that_has_the_group(compose_and_resolve, group, option):
    nested = [
        path
        for path in CONF.rglob("*/*.yaml")
        if path.parent.name != "options" and group in groups_in_defaults(path)
    ]
    entries = entries_with(group, option)
    assert entries or nested, f"no defaults list names the group {group}"
    for entry in entries:
        compose_and_resolve(entry, f"{group}={option}")
    for entry in set(entries_with(group)) - set(entries):  # an experiment of another command is refused
        with pytest.raises(ConfigCompositionException, match="Could not override"):
            compose_and_resolve(entry, f"{group}={option}")


@pytest.mark.parametrize("entry", ENTRIES)
def test_misspelt_keys_are_errors(compose, entry):
    cfg = OmegaConf.to_container(compose(config_name=entry), resolve=False)
    nested = sorted(path for path in key_paths(cfg) if "." in path)
    for key in [*list(cfg)[:3], *nested[:3], *nested[-1:]]:
        with pytest.raises(ConfigCompositionException, match="Could not override"):
            compose([f"{key}_typo=1"], config_name=entry)


@pytest.mark.parametrize(
    ("group", "option"), [pair for pair in OPTIONS if pair[0] in ("experiment", "debug")]
)
def test_presets_set_only_keys_that_exist(compose, group, option):
    """Hydra merges a file's unknown keys in silence: a misspelt one would change nothing."""
    path = CONF / group / f"{option}.yaml"
    assert path.read_text("utf-8").startswith("# @package _global_"), f"{path} must be of package _global_"
    body = {key: value for key, value in read(path).items() if key not in ("defaults", "hydra")}
    groups = [f"{name}={choice}" for name, choice in groups_in_defaults(path).items()]
    for entry in entries_with(group, option):
        base = OmegaConf.to_container(compose(groups, config_name=entry), resolve=False)
        existing = key_paths(base) | class_keys(body)
        unknown = [
            key
            for key in key_paths(body)
            if key not in existing and not any(k.startswith(key + ".") for k in existing)
        ]
        assert unknown == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_help_text_names_every_key_of_the_user(compose, entry):
    cfg = compose(config_name=entry, return_hydra_config=True)
    text = str(cfg.hydra.help.header) + cfg.hydra.help.template
    own = specs_of(commands.COMMANDS[entry.split("/")[-1]])
    if "$CONFIG" not in text:  # which Hydra replaces by the whole configuration
        assert [key for key in own if key not in text] == []
    command = f"-m rasr.tools {entry.removeprefix('tools/')} " if "/" in entry else f"{entry}.py"
    assert f"python {command}" in text  # an example to copy
