"""Two processes (gloo, CPU) learn what one process learns from twice the batch, and stay equal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import SMALL_GAN, write_training_set

TWO = ("data.batch_size=1", "trainer.devices=2", "trainer.strategy=ddp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small backbone and ten images with a reference each."""
    folder = tmp_path_factory.mktemp("ddp")
    write_training_set(folder, count=10, side=40)
    return folder


def train(folder: Path, repository: Path, name: str, *overrides: str, launcher: tuple[str, ...] = ()) -> None:
    command = [
        *(
            sys.executable,
            *launcher,
            "train.py",
            "debug=default",
            f"model.backbone={folder}/backbone",
            "gt_size=32",
        ),
        *(f"paths.data_dir={folder}", f"paths.output_dir={folder}/{name}", "data.val=null"),
        *("trainer.max_steps=5", "callbacks.panels.rows=0", "callbacks.ema.decay=0"),
        f"+callbacks.rank={{_target_: tests.training.rank_state.SaveRank, folder: {folder}/{name}}}",
        *overrides,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def assert_moved(tensors: dict[str, torch.Tensor]) -> None:
    zero_convs = [t for name, t in tensors.items() if "controlnet" in name and name.endswith("weight")]
    assert any(tensor.abs().max() > 0 for tensor in zero_convs), "nothing was learnt"


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(folder, repository):
    train(folder, repository, "one", "data.batch_size=2")
    train(folder, repository, "two", *TWO)
    one, two = (load_file(folder / name / "weights.safetensors") for name in ("one", "two"))
    assert_moved(one)
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_ranks_stay_equal_with_the_gan_on(folder, repository):
    """Bit for bit: generator, discriminator heads with their power iteration, and AdamW's moments."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    train(folder, repository, "gan", *TWO, *SMALL_GAN, launcher=torchrun)
    ranks = [torch.load(folder / "gan" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_moved(ranks[0]["tensors"])
    heads = [name for name in ranks[0]["tensors"] if name.startswith("discriminator.heads.")]
    assert any(name.endswith("._u") for name in heads)
    for name, tensor in ranks[0]["tensors"].items():
        assert torch.equal(ranks[1]["tensors"][name], tensor), name
    moments = [rank["optimizer"]["state"] for rank in ranks]
    assert moments[0].keys() == moments[1].keys() and moments[0]
    for key, state in moments[0].items():
        assert all(torch.equal(value, moments[1][key][name]) for name, value in state.items()), key
