"""What earlier versions wrote still opens: stored configurations that name classes by their old places."""

import json

import torch
from hydra.utils import get_class, get_object

from rasr.degradation import RealESRGANDegradation
from rasr.image_io import read_image
from rasr.moved import MOVED_TARGETS, current_target, with_current_targets
from rasr.seeding import sample_seed
from tests.helpers import run_tool, write_training_set

OLD = "rasr.data.RealESRGANDegradation"


def test_old_names_lead_to_classes_that_exist():
    old = [OLD, "rasr.data.degradation.RealESRGANDegradation"]
    assert {get_class(current_target(name)) for name in old} == {RealESRGANDegradation}
    for name, now in MOVED_TARGETS.items():
        assert current_target(name) == now == current_target(now)
        assert get_object(now) is not None
    for name in ("rasr.data.datamodule.RASRDataModule", "rasr.data.degradations.X", "rasr", ""):
        assert current_target(name) == name


def test_a_stored_configuration_gets_todays_names():
    stored = {"a": [{"_target_": OLD, "preset": "mild"}], "_target_": "x.Y", "b": OLD, "n": None}
    assert with_current_targets(stored) == {
        "a": [{"_target_": "rasr.degradation.RealESRGANDegradation", "preset": "mild"}],
        "_target_": "x.Y",
        "b": OLD,
        "n": None,
    }
    assert stored["a"][0]["_target_"] == OLD


def test_a_yaml_of_the_users_own_may_keep_the_old_name(tmp_path):
    write_training_set(tmp_path, count=1, side=64)
    (tmp_path / "conf" / "degradation").mkdir(parents=True)
    text = f"_target_: {OLD}\npreset: mild\nscale: ${{scale}}\n"
    (tmp_path / "conf" / "degradation" / "mine.yaml").write_text(text)
    keys = [f"hydra.searchpath=[file://{tmp_path}/conf]", "degradation=mine", "seed=3"]
    done = run_tool("degrade", "input=references", "output=set", *keys, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "set" / "parameters.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["image_seed"] == sample_seed(3, "0.png")
    gt, lq = (read_image(tmp_path / "set" / entry[kind]) for kind in ("gt", "lq"))
    mild = RealESRGANDegradation("mild")
    assert torch.equal(mild(gt[None], seeds=torch.tensor([entry["image_seed"]]))[0], lq)
