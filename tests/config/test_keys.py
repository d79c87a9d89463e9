"""Every key of every command: wrong values are one line that names it, before anything is opened."""

import math

import pytest
from omegaconf import OmegaConf

from rasr.composing import compose_command
from rasr.config import COMMANDS, check_command, keys_help
from rasr.config.keys import REQUIRED, check_value, defaults_of, specs_of
from rasr.errors import RasrError
from tests.helpers import run_entry

KEYS = [(command, key) for command, keys in COMMANDS.items() for key in specs_of(keys)]
WRONG = {
    "text": [True, [1], {"a": 1}, "", "  "],
    "whole": ["abc", 2.5, True, [1], math.nan, math.inf, "", -(10**9)],
    "number": ["abc", True, [1], math.nan, math.inf, -math.inf, ""],
    "flag": ["abc", 1, 0, [True], ""],
    "choice": ["abc", 1, True, [1], ""],
    "anything": [],
}


def spec_of(command, key):
    return specs_of(COMMANDS[command])[key]


@pytest.mark.parametrize(("command", "key"), KEYS)
def test_wrong_values_are_one_line_that_names_the_key(command, key):
    spec = spec_of(command, key)
    wrong = list(WRONG[spec.kind])
    wrong += [] if spec.may_be_null else [None]
    wrong += [] if spec.most is None else [spec.most + 1]
    wrong += [] if spec.least is None else [spec.least - 1]
    for value in wrong:
        with pytest.raises(RasrError) as caught:
            check_value(key, value, spec)
        text = str(caught.value)
        assert text.startswith(f"{key}=") and "\n" not in text, text


@pytest.mark.parametrize(("command", "key"), KEYS)
def test_defaults_and_ends_of_the_range_are_right(command, key):
    spec, default = spec_of(command, key), defaults_of(COMMANDS[command])[key]
    right = [default] if default != REQUIRED else []
    right += [end for end in (spec.least, spec.most) if end is not None and spec.kind == "number"]
    right += [int(end) for end in (spec.least, spec.most) if end is not None and spec.kind == "whole"]
    right += list(spec.choices) + ([None] if spec.may_be_null else [])
    right += {"text": ["a", 2024, "2024"], "flag": [True, False]}.get(spec.kind, [])
    for value in right:
        check_value(key, value, spec)
    assert spec.help and not spec.help[0].isupper() and not spec.help.endswith(".")


@pytest.mark.parametrize("command", ["infer", "index", "evaluate", "train"])
def test_a_composed_command_has_these_keys_and_defaults(command):
    cfg = compose_command(command, {})
    for key, default in defaults_of(COMMANDS[command]).items():
        value = OmegaConf.to_container(cfg, resolve=False)[key]
        assert value == default, key


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_key(command):
    text = keys_help(command)
    for key in specs_of(COMMANDS[command]):
        assert f"\n  {key}=" in f"\n{text}"
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("script", "keys", "message"),
    [
        (
            "infer.py",
            ("input=a", "output=b", "+indx=c"),
            "indx= is no key of this command; did you mean index",
        ),
        (
            "infer.py",
            ("input=a", "output=b", "tile_size=-1"),
            "tile_size=-1 is not a whole number",
        ),
        ("infer.py", ("input=a", "output=b", "scale=null"), "scale=null is not meant"),
        ("index.py", ("index=a", "database=b", "quantize=maybe"), "quantize=maybe is neither true nor false"),
        ("evaluate.py", ("job=score", "sr=a", "output=b", "strict=3"), "strict=3 is neither true nor false"),
        ("train.py", ("debug=default", "seed=abc"), "seed=abc is not a whole number of at least 0"),
    ],
)
def test_commands_refuse_them_first(tmp_path, script, keys, message):
    done = run_entry(script, *keys, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and message in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "outputs"] == []


def test_groups_are_no_unknown_keys():
    cfg = compose_command("infer", {"input": "a", "output": "b"})
    check_command(
        cfg, "infer", ["keys", "method", "refir", "fallback", "prompt", "hydra/output", "experiment"]
    )
    with pytest.raises(RasrError, match=r"meant|no key"):
        check_command({**cfg, "methode": 1}, "infer", ["keys", "method", "refir", "fallback", "prompt"])
