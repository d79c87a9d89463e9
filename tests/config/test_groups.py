"""Values within groups: wrong ones are one line that names the key, before anything is opened."""

import pytest
import yaml
from omegaconf import OmegaConf

from rasr.composing import CONF, compose_command
from rasr.config import check_command
from rasr.config.correspondence import CorrespondenceConfig
from rasr.config.groups import GROUP_KEYS, check_groups, find
from rasr.config.injection import PRESETS
from rasr.config.keys import check_value, defaults_of, specs_of
from rasr.config.net import RASRNetConfig
from rasr.errors import RasrError
from tests.config.test_keys import WRONG
from tests.helpers import run_entry

INFER = {"input": "a", "output": "b"}
COMPOSED = {
    "train": ("train", {"data.train": "a"}),
    "two views": ("train", {"data.train": "a", "data": "two_view", "model": "correspondence_small"}),
    "refir": ("infer", INFER | {"method": "refir", "fallback": "gen_ref"}),
    "multistep": ("infer", INFER | {"method": "refir_multistep"}),
    "index": ("index", {"database": "a", "index": "b"}),
    "random": ("index", {"database": "a", "index": "b", "encoder": "random"}),
}


@pytest.fixture(scope="module")
def configs():
    return {
        name: OmegaConf.to_container(compose_command(command, values), resolve=True)
        for name, (command, values) in COMPOSED.items()
    }


def set_value(cfg, path, value):
    *groups, last = path.split(".")
    for group in groups:
        cfg = cfg[group]
    before, cfg[last] = cfg[last], value
    return before


def wrong_values(spec):
    wrong = WRONG[spec.kind] + ([] if spec.may_be_null or spec.kind == "anything" else [None])
    wrong += [] if spec.most is None else [spec.most + 1]
    return wrong + ([] if spec.least is None else [spec.least - 1])


@pytest.mark.parametrize("key", GROUP_KEYS)
def test_wrong_values_are_one_line_that_names_the_key(configs, key):
    spec = GROUP_KEYS[key]
    found = [(cfg, path) for cfg in configs.values() for path, _ in find(cfg, key)]
    assert found, f"no command has {key}"
    for cfg, path in found[:1]:
        for value in wrong_values(spec):
            before = set_value(cfg, path, value)
            try:
                with pytest.raises(RasrError) as caught:
                    check_groups(cfg)
            finally:
                set_value(cfg, path, before)
            assert str(caught.value).startswith(f"{path}=") and "\n" not in str(caught.value)


def test_settings_of_the_correspondence_fusion(configs):
    cfg = configs["two views"]
    for name in specs_of(CorrespondenceConfig).keys() & cfg["model"]["fusion_settings"].keys():
        before = set_value(cfg, f"model.fusion_settings.{name}", 0)
        with pytest.raises(RasrError, match=rf"^model\.fusion_settings\.{name}=0 is not a whole number"):
            check_groups(cfg)
        set_value(cfg, f"model.fusion_settings.{name}", before)


def test_a_class_of_the_users_own_may_mean_something_else(configs):
    cfg = {"encoder": {"_target_": "mine.Encoder", "pool": 3}, "data": {"batch_size": 2}}
    check_groups(cfg)
    with pytest.raises(RasrError, match=r"encoder\.pool=3"):
        check_groups({"encoder": {"_target_": "rasr.retrieval.TimmEncoder", "pool": 3}})


@pytest.mark.parametrize("preset", PRESETS)
def test_yaml_and_presets_of_the_injection_are_the_same(preset):
    cfg = compose_command("infer", INFER | {"refir": preset})
    values = {key: value for key, value in cfg.refir.items() if key != "_target_"}
    assert values == vars(PRESETS[preset])


def test_the_papers_net_has_the_defaults():
    given = yaml.safe_load((CONF / "model" / "rasr_sd21.yaml").read_text("utf-8"))
    defaults = defaults_of(RASRNetConfig)
    same = {key: value for key, value in given.items() if key not in ("_target_", "scale")}
    as_lists = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert same == {key: as_lists[key] for key in same}
    for key, value in same.items():
        check_value(key, value, specs_of(RASRNetConfig)[key])


@pytest.mark.parametrize("command", ["train", "infer", "index", "evaluate"])
def test_keys_that_there_are_none_of(command):
    cfg = compose_command(command, {})
    groups = ["keys", *(key for key in cfg if OmegaConf.is_config(cfg._get_node(key)))]
    cfg = OmegaConf.to_container(cfg, resolve=False) | {"unknwon": 1}
    with pytest.raises(RasrError, match=r"^unknwon= is no key of this command"):
        check_command(cfg, command, groups)


@pytest.mark.parametrize(
    ("script", "keys", "message"),
    [
        ("train.py", ("debug=default", "data.train=a", "trainer.max_steps=0"), "trainer.max_steps=0 is not"),
        ("train.py", ("debug=default", "data.train=a", "model.rank=0"), "model.rank=0 is not a whole number"),
        ("infer.py", ("input=a", "output=b", "method=refir", "refir.scale=2"), "refir.scale=2 is above 1"),
        ("index.py", ("database=a", "index=b", "encoder.img_size=0"), "encoder.img_size=0 is not a whole"),
    ],
)
def test_commands_refuse_them_first(tmp_path, script, keys, message):
    done = run_entry(script, *keys, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert [path.name for path in tmp_path.iterdir() if path.name != "outputs"] == []
