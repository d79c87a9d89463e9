"""train.py as a user runs it: the GAN, precision, logs and pictures."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import SMALL_GAN
from tests.training_runs import make_folder, metrics, train

GAN = (*SMALL_GAN, "module.grad_norm_every=1", "trainer.log_every_n_steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("train_parts"))


def test_gan_trains_both_networks_and_logs_them(folder):
    done = train(folder, "gan", *GAN, "callbacks.checkpoint.every_n_train_steps=1")
    assert done.returncode == 0, done.stderr
    rows = [row for row in metrics(folder / "gan") if row["train/loss_total"]]
    assert len(rows) == 3
    for row in rows:
        values = {
            name: float(row[f"train/{name}"]) for name in ("loss_mse", "loss_gan", "loss_d", "loss_total")
        }
        assert values["loss_total"] == pytest.approx(values["loss_mse"] + 0.1 * values["loss_gan"], rel=1e-5)
        assert float(row["train/grad_norm_gan"]) > 0 and float(row["train/grad_norm_mse"]) > 0
        assert math.isfinite(float(row["train/logits_real"]) + float(row["train/logits_fake"]))
    assert {name.split(".")[0] for name in load_file(folder / "gan" / "weights.safetensors")} == {"branch"}
    checkpoints = [
        torch.load(folder / "gan" / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        for name in ("step_0000002", "last")
    ]
    heads = [name for name in checkpoints[0] if name.startswith("discriminator.")]
    assert heads and all(name.startswith("discriminator.heads.") for name in heads)
    assert all(
        not torch.equal(*(c[name] for c in checkpoints)) for name in heads if name.endswith("original")
    )


@pytest.mark.slow
def test_resumed_gan_run_equals_a_straight_one(folder):
    every_2 = ("callbacks.checkpoint.every_n_train_steps=2", "resume=auto", "+trainer.limit_val_batches=0")
    assert train(folder, "gan_straight", "trainer.max_steps=5", *every_2, *GAN).returncode == 0
    assert train(folder, "gan_resumed", "trainer.max_steps=2", *every_2, *GAN).returncode == 0
    done = train(folder, "gan_resumed", "trainer.max_steps=5", *every_2, *GAN)
    assert done.returncode == 0, done.stderr
    straight, resumed = (
        load_file(folder / name / "weights.safetensors") for name in ("gan_straight", "gan_resumed")
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_gan_weight_without_a_discriminator_is_named(folder):
    done = train(folder, "mistake", "loss.weights.gan=0.1")
    assert done.returncode == 2
    assert "loss.weights.gan=0.1 and a discriminator go together" in done.stderr


def test_gradient_norms_can_be_left_out(folder):
    assert train(folder, "quiet", "module.grad_norm_every=0", "trainer.log_every_n_steps=1").returncode == 0
    assert not any("grad_norm" in name for name in metrics(folder / "quiet")[0])


def test_wandb_gets_numbers_and_pictures(folder):
    """Offline: the run lies on disk until `wandb sync`."""
    done = train(folder, "wandb", "logger=wandb", "trainer.log_every_n_steps=1")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "wandb" / "wandb").glob("offline-run-*")
    assert list((run / "files" / "media" / "images" / "val").glob("panel_*.png"))


def test_bf16_mixed_keeps_trainable_tensors_in_float32(folder):
    done = train(folder, "bf16", "trainer.max_steps=1", "trainer.precision=bf16-mixed")
    assert done.returncode == 0, done.stderr
    assert train(folder, "full", "trainer.max_steps=1").returncode == 0
    ours, theirs = (load_file(folder / name / "weights.safetensors") for name in ("bf16", "full"))
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_panels_can_be_left_out(folder):
    assert train(folder, "silent", "callbacks.panels.rows=0").returncode == 0
    assert not (folder / "silent" / "panels").exists()


def test_checkpoints_are_kept_as_asked(folder):
    keys = ("callbacks.checkpoint.every_n_train_steps=1", "callbacks.checkpoint.save_top_k=1")
    assert train(folder, "kept", *keys).returncode == 0
    assert {p.name for p in (folder / "kept" / "checkpoints").iterdir()} == {"step_0000003.ckpt", "last.ckpt"}


def test_validation_scale_changes_the_validation_only(folder):
    scores = {}
    for scale in (0.5, 1.0):
        keys = ("optim.optimizer.lr=0.1", "trainer.max_steps=1", "trainer.val_check_interval=1")
        done = train(folder, f"val{scale}", f"module.val_conditioning_scale={scale}", *keys)
        assert done.returncode == 0, done.stderr
        scores[scale] = [row["val/psnr"] for row in metrics(folder / f"val{scale}") if row["val/psnr"]]
    assert scores[0.5] != scores[1.0]
    weights = [load_file(folder / f"val{scale}" / "weights.safetensors") for scale in (0.5, 1.0)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
