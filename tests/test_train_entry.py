"""train.py as a user runs it: files written, resume, clear errors, and the losses really go down."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rasr.inference import Restorer
from rasr.models import load_rasr_net, make_tiny_backbone
from tests.training_runs import make_folder, metrics, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("train"))


def files(root: Path) -> set[str]:
    return {
        p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".hydra" not in p.parts
    }


@pytest.fixture(scope="module")
def run(folder) -> Path:
    """The folder of a finished run with the default settings, for tests that only read it."""
    done = train(folder, "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_writes_exactly_its_files_and_usable_weights(folder, run):
    assert files(folder / "run") == {
        "config.yaml",
        "logs/version_0/metrics.csv",
        "train.log",
        "checkpoints/last.ckpt",
        "checkpoints/step_0000002.ckpt",
        "panels/step_0000000.png",
        "panels/step_0000003.png",
        "weights.safetensors",
    }
    net = load_rasr_net(folder / "run" / "weights.safetensors")
    image = torch.rand(1, 3, 64, 64)
    assert net(image, image).shape == image.shape
    from_checkpoint = load_rasr_net(folder / "run" / "checkpoints" / "last.ckpt")
    assert from_checkpoint.config == net.config


def test_checkpoint_holds_trainable_tensors_and_plain_values(run):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    # The residual fusion's weight files keep the name that it had before there was a second fusion.
    weights = load_file(run / "weights.safetensors")
    assert all(name.startswith("branch.") for name in weights)
    trainable = {name.replace("branch.", "fusion.", 1) for name in weights}
    assert {name.removeprefix("net.") for name in checkpoint["state_dict"]} == trainable
    assert checkpoint["run_config"]["gt_size"] == 64
    assert checkpoint["global_step"] == 3
    assert set(checkpoint["ema_state_dict"]) == trainable


def test_training_changes_the_branch_and_nothing_else(run):
    tensors = load_file(run / "weights.safetensors")
    zero_convs = [
        t for name, t in tensors.items() if "controlnet_down_blocks" in name and name.endswith("weight")
    ]
    assert any(t.abs().sum() > 0 for t in zero_convs)
    before = make_tiny_backbone(seed=0).state_dict()
    after = load_rasr_net(run / "weights.safetensors").backbone.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


@pytest.mark.slow
def test_backbone_experiment_learns(folder):
    """A backbone trained from nothing: the loss of 40 steps goes down and the directory loads."""
    done = train(
        folder,
        "backbone_run",
        "model=backbone_only",
        f"model.backbone={folder}/backbone",
        "optim.optimizer.lr=2e-3",
        "trainer.max_steps=40",
        "trainer.val_check_interval=40",
        "trainer.log_every_n_steps=1",
        "data.batch_size=4",
    )
    assert done.returncode == 0, done.stderr
    rows = metrics(folder / "backbone_run")
    losses = [float(row["train/loss_total"]) for row in rows if row["train/loss_total"]]
    assert len(losses) == 40 and all(map(math.isfinite, losses))
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert [float(row["val/psnr"]) for row in rows if row["val/psnr"]]
    net = load_rasr_net(folder / "backbone_run" / "weights")
    assert net.fusion is None


def test_resumed_run_equals_a_straight_one(folder):
    """10 steps = 6 + resume + 4, bit for bit, the checkpoint in the middle of an epoch of 4 batches."""
    every_6 = ("callbacks.checkpoint.every_n_train_steps=6", "resume=auto", "trainer.val_check_interval=5")
    assert train(folder, "straight", "trainer.max_steps=10", *every_6).returncode == 0
    assert train(folder, "resumed", "trainer.max_steps=6", *every_6).returncode == 0
    done = train(folder, "resumed", "trainer.max_steps=10", *every_6)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout and "at step 6" in done.stdout
    straight, resumed = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("straight", "resumed")
    )
    for key in ("state_dict", "ema_state_dict", "optimizer_states", "lr_schedulers"):
        assert straight[key], key
        torch.testing.assert_close(resumed[key], straight[key], atol=0, rtol=0)
    data = [run["loops"]["fit_loop"]["state_dict"]["combined_loader"] for run in (straight, resumed)]
    assert data[0] == data[1] and data[0][0]["epoch"] == 2


def test_a_run_goes_on_under_another_name_and_from_another_folder(folder):
    every_2 = ("callbacks.checkpoint.every_n_train_steps=2", "trainer.max_steps=2")
    assert train(folder, "old", *every_2, "resume=auto", "name=old").returncode == 0
    last = folder / "old" / "checkpoints" / "last.ckpt"
    done = train(folder, "new", "trainer.max_steps=4", f"resume={last}", "name=new")
    assert done.returncode == 0, done.stderr
    assert "at step 2" in done.stdout
    (folder / "old").rename(folder / "moved_run")
    done = train(folder, "moved_run", "trainer.max_steps=4", "resume=auto", "name=old")
    assert done.returncode == 0, done.stderr
    new, moved = (load_file(folder / name / "weights.safetensors") for name in ("new", "moved_run"))
    assert all(torch.equal(new[name], tensor) for name, tensor in moved.items())


def test_another_length_under_a_cosine_is_another_run(folder):
    assert train(folder, "cosine", "optim.decay=cosine", "resume=auto").returncode == 0
    done = train(folder, "cosine", "optim.decay=cosine", "resume=auto", "trainer.max_steps=5")
    assert done.returncode == 2
    assert "trainer.max_steps under optim.decay=cosine: 3 -> 5" in done.stderr


def test_the_scale_is_kept_with_the_weights(folder, caplog):
    done = train(folder, "scale2", "scale=2")
    assert done.returncode == 0, done.stderr
    net = load_rasr_net(folder / "scale2" / "weights.safetensors")
    with caplog.at_level("WARNING"):
        assert Restorer(net, scale=2, device="cpu").restore(torch.rand(3, 8, 8)).shape == (3, 16, 16)
        assert not caplog.records
        Restorer(net, device="cpu")
    assert "trained for scale=2, not 4" in caplog.text


def test_a_finished_run_is_not_trained_again(folder, run):
    shutil.copytree(run, folder / "done")
    before = load_file(folder / "done" / "weights.safetensors")
    done = train(folder, "done", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert "at step 3" in done.stdout
    after = load_file(folder / "done" / "weights.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_that_is_not_finite_stops_with_the_images(folder):
    done = train(folder, "exploded", "optim.optimizer.lr=1e30", "+trainer.limit_val_batches=0")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("error: the loss is nan at step") and ".png" in last and "optim.optimizer.lr" in last
    )


def test_other_settings_are_not_mixed_into_a_run(folder, run):
    shutil.copytree(run, folder / "mixed")
    done = train(folder, "mixed", "resume=auto", "optim.optimizer.lr=1")
    assert done.returncode == 2
    assert "optim.optimizer.lr: 5e-05 -> 1" in done.stderr and "resume=false" in done.stderr
    assert "lr: 5.0e-05" in (folder / "mixed" / "config.yaml").read_text(), (
        "the run's own record was overwritten"
    )
    assert train(folder, "mixed", "resume=false", "optim.optimizer.lr=1").returncode == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gt_size=72"], "gt_size=72 does not fit the backbone; give a multiple of 16"),
        (["gt_size=66"], "gt_size=66 is not a multiple of scale=4"),
        (["trainer.max_steps=0"], "trainer.max_steps=0 is not a whole number of at least 1"),
        (["resume=lost.ckpt"], "resume=lost.ckpt does not exist"),
        (["model.backbone=lost"], "cannot load the backbone 'lost'"),
        (["loss.weights={mse: 0}"], "every loss weight is 0"),
        (["optim.decay=linear"], "optim.decay='linear'"),
        (["data.train=lost.csv"], "lost.csv"),
        (["data.train=data", "data.val=null"], "data has no references"),
        (["gt_size=128"], "128"),
        (["trainer.max_step=3"], "max_step"),
        (["trainer.max_steps=abc"], "trainer.max_steps=abc is not a whole number"),
        (["seed=-1"], "seed=-1 is not a whole number of at least 0"),
        (["optim.warmup_steps=-3"], "optim.warmup_steps=-3 is not a whole number"),
        (["optim.optimizer.lr=-1"], "optim.optimizer.lr=-1; give a number above 0"),
        (["callbacks.checkpoint.every_n_train_steps=0"], "every_n_train_steps=0 is not a whole"),
        (["callbacks.ema=null"], "callbacks.ema=null"),
        (["trainer=gpu"], "there is no GPU here; add trainer=cpu"),
        (["gt_size=abc"], "gt_size=abc"),
        (["scale=0"], "scale=0"),
        (["model.rank=0"], "rank=0 is not a whole number"),
        (["model.color_fix=nofix"], "color_fix='nofix' is unknown; give one of adain, wavelet, anchor, none"),
        (["model.ref_timestep=5000"], "ref_timestep=5000 is outside the schedule"),
        (["model.block_weights=[1,1,1]"], "do not fit a decoder of 4 blocks"),
    ],
)
def test_mistakes_are_one_line(folder, monkeypatch, overrides, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    done = train(folder, "mistake", *overrides)
    assert done.returncode != 0
    assert message in done.stderr, done.stderr
    assert "HYDRA_FULL_ERROR" not in done.stderr or "max_step'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "mistake" / "weights.safetensors").exists()


def test_damaged_checkpoint_is_named(folder):
    (folder / "damaged" / "checkpoints").mkdir(parents=True)
    (folder / "damaged" / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    done = train(folder, "damaged", "resume=auto")
    assert done.returncode == 2
    assert "last.ckpt is damaged" in done.stderr


LEARNT = (
    "optim.optimizer.lr=1e-3",
    "seed=1",
    "degradation=realesrgan",
    "trainer.gradient_clip_val=1e-4",
    "trainer.accumulate_grad_batches=2",
    "model.rank=2",
    "model.ref_prompt=cat",
    "callbacks.ema.decay=0",
)
LEARNT_SLOW = (
    "module.conditioning_scale=0.5",
    "optim.optimizer.betas=[0.5,0.9]",
    "optim.optimizer.weight_decay=10",
    "optim.warmup_steps=3",
    "optim.decay=cosine",
    "degradation=bicubic",
    "data.hflip=false",
    "data.random_crop=false",
    "model.lora_alpha=100",
    "model.lora_layers=[to_q,conv1]",
    "model.ref_timestep=10",
    "model.block_weights=[1,0,0,0]",
    "model.text_blocks=[2,3]",
    "model.timestep=900",
)


@pytest.mark.parametrize(
    "override", [*LEARNT, *(pytest.param(key, marks=pytest.mark.slow) for key in LEARNT_SLOW)]
)
def test_every_training_key_changes_what_is_learnt(folder, override):
    steps = 3 if override in LEARNT_SLOW else 1
    keys = (f"trainer.max_steps={steps}", "+trainer.limit_val_batches=0")
    default = folder / f"default{steps}" / "weights.safetensors"
    if not default.exists():
        assert train(folder, f"default{steps}", *keys).returncode == 0
    done = train(folder, "flip", *keys, override)
    assert done.returncode == 0, done.stderr
    ours, theirs = load_file(default), load_file(folder / "flip" / "weights.safetensors")
    assert any(ours[n].shape != theirs[n].shape or not torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_sweep_over_several_devices_is_refused(folder):
    done = train(folder, "sweep", "--multirun", "trainer.devices=2", "seed=0,1")
    assert done.returncode != 0
    assert "a sweep with trainer.devices=2 cannot start its own processes" in done.stderr


def test_a_sweep_gives_every_job_its_folder(folder):
    done = train(folder, "sweep1", "--multirun", "seed=0,1", "callbacks.panels.rows=0")
    assert done.returncode == 0, done.stderr
    ours, theirs = (load_file(folder / "sweep1" / job / "weights.safetensors") for job in "01")
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
