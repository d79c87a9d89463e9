"""A backbone trained part by part: `train.py` with the modules and the model of rasr-small's recipe."""

import pytest
import torch

from rasr.models import load_rasr_net, make_tiny_backbone
from tests.helpers import run_entry, write_training_set


@pytest.mark.parametrize(
    ("part", "module"), [("vae", "AutoencoderModule"), ("unet", "LatentModule")], ids=["vae", "unet"]
)
def test_only_the_chosen_part_of_a_backbone_learns(tmp_path, part, module):
    write_training_set(tmp_path, count=2, side=64)
    done = run_entry(
        "train.py",
        "debug=default",
        "model=rasr_small_backbone",
        f"model.backbone={tmp_path}/backbone",
        f"model.trainable=[{part}]",
        f"module._target_=rasr.training.{module}",
        f"data.train={tmp_path}/manifest.csv",
        "data.val=null",
        "data.batch_size=2",
        "trainer.max_steps=2",
        f"paths.output_dir={tmp_path}/run",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    before, after = make_tiny_backbone(seed=0), load_rasr_net(tmp_path / "run" / "weights").backbone
    for other in ("vae", "unet"):
        tensors = getattr(after, other).state_dict()
        is_same = [torch.equal(tensors[key], t) for key, t in getattr(before, other).state_dict().items()]
        assert all(is_same) == (other != part)


def test_every_stage_of_the_recipe_starts_from_what_the_one_before_writes(compose, repository):
    stages = ["vae", "unet", "unet_hard", "unet_again", "backbone", "range", "correspondence", "rasr"]
    configs = [compose([f"experiment=small_{stage}"]) for stage in stages]
    assert [cfg.name for cfg in configs] == [f"small/{stage}" for stage in stages]
    written = [f"outputs/{cfg.name}/weights" for cfg in configs]
    assert [cfg.model.backbone for cfg in configs[1:5]] == written[:4]
    # Both fusions are over the last backbone, and take from the photograph what it cannot hold.
    assert [cfg.model.backbone for cfg in configs[6:]] == [written[5]] * 2
    assert [cfg.model.color_fix for cfg in configs[6:]] == ["anchor"] * 2
    # Before the last backbone stands a small command; its line must be the one that fits.
    line = f"rasr.tools interpolate first={written[3]} second={written[4]} "
    recipe = (repository / "conf" / "experiment" / "small_backbone.yaml").read_text("utf-8")
    assert line in recipe and f"output={configs[5].model.backbone}\n" in recipe
