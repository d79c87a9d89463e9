"""The ready sweeps, and a launcher that starts a process per job."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from rasr.image_io import write_png
from rasr.models import build_rasr_net, save_weights
from rasr.retrieval import ColorGradientEncoder, build_index
from tests.helpers import run_entry, wake_zero_convs, write_training_set

SMALL_VIT = (
    "{_target_: timm.create_model, model_name: vit_tiny_patch16_224, img_size: 64, depth: 2, embed_dim: 48}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small backbone, a manifest with references, and an index of the same images."""
    folder = tmp_path_factory.mktemp("sweeps")
    write_training_set(folder, count=4, side=80)
    for i in range(4):
        (folder / "references" / f"{i}.txt").write_text("a reference")
    return folder


def test_table_3_restores_with_each_kind_of_prompt(folder):
    net = build_rasr_net(str(folder / "backbone"))
    wake_zero_convs(net)
    save_weights(net, folder / "weights")
    build_index(folder / "references", folder / "index", ColorGradientEncoder())
    write_png(torch.rand(3, 16, 16), folder / "lq" / "photo.png")
    (folder / "lq" / "photo.txt").write_text("a photo")
    keys = ("input=lq", "weights=weights.safetensors", "index=index", "device=cpu")
    done = run_entry("infer.py", "experiment=table3", *keys, cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = {"none": "", "lq": "a photo", "ref": "a reference", "lq_ref": "a photo, a reference"}
    for name, prompt in expected.items():
        (line,) = (folder / "outputs" / "table3" / name / "results.jsonl").read_text().splitlines()
        assert json.loads(line)["prompt"] == prompt
        assert (folder / "outputs" / "table3" / name / "photo.png").is_file()

    # A job that fails leaves the index, which one process at a time may open, to the next.
    keys = ("input=lq", "weights=gone.safetensors,weights.safetensors", "index=index", "device=cpu")
    done = run_entry("infer.py", "--multirun", "output=swept/${hydra:job.num}", *keys, cwd=folder)
    assert done.returncode != 0 and "gone.safetensors does not exist" in done.stderr + done.stdout
    assert (folder / "swept" / "1" / "photo.png").is_file(), done.stderr


def test_table_4_trains_with_each_loss(folder):
    vgg = torchvision.models.vgg16().features.state_dict()
    save_file({f"features.{name}": tensor for name, tensor in vgg.items()}, folder / "vgg16.safetensors")
    done = run_entry(
        "train.py",
        "experiment=table4",
        *("trainer=cpu", "trainer.max_steps=1", "trainer.accumulate_grad_batches=1", "logger=csv"),
        *(
            "trainer.log_every_n_steps=1",
            "gt_size=64",
            "data=folder",
            "data.batch_size=1",
            "data.num_workers=0",
        ),
        *("data.train=manifest.csv", "data.val=null", "model.backbone=backbone", "optim.warmup_steps=0"),
        *("loss.vgg_weights=vgg16.safetensors", f"discriminator.vit={SMALL_VIT}", "discriminator.blocks=[1]"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    terms = {}
    for run in sorted((folder / "outputs" / "table4").glob("*/")):
        header = (run / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
        terms[run.name] = {h.removeprefix("train/loss_") for h in header if h.startswith("train/loss_")}
        assert load_file(run / "weights.safetensors")
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert terms == {
        "mse_lpips": {"mse", "lpips", "total"},
        "mse_lpips_gram": {"mse", "lpips", "gram", "total"},
        "mse_lpips_gan": {"mse", "lpips", "gan", "d", "total"},
        "default": {"mse", "lpips", "gram", "gan", "d", "total"},
    }


@pytest.mark.slow
def test_submitit_gives_every_job_a_process(folder, repository):
    """hydra/launcher=submitit_local: what submitit_slurm does, on this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [
        *(sys.executable, "train.py", "--multirun", "hydra/launcher=submitit_local", "debug=default"),
        *("seed=0,1", f"model.backbone={folder}/backbone", "gt_size=32", f"data.train={folder}/manifest.csv"),
        *("data.val=null", "trainer.max_steps=1", "callbacks.panels.rows=0", "data.batch_size=1"),
        f"paths.output_dir={folder}/submitit",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    zero, one = (load_file(folder / "submitit" / job / "weights.safetensors") for job in "01")
    assert any(not torch.equal(zero[name], one[name]) for name in zero)
