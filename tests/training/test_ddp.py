"""Two processes (gloo, CPU) learn what one process learns from twice the batch."""

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

from rasr.image_io import write_png
from rasr.models import make_tiny_backbone


def test_two_processes_equal_one_with_twice_the_batch(tmp_path, repository):
    make_tiny_backbone(seed=0).save_pretrained(tmp_path / "backbone")
    lines = ["image,split,category,prompt,references"]
    for i in range(10):
        for name in (f"{i}.png", f"ref{i}.png"):
            write_png(torch.rand(3, 40, 40), tmp_path / name)
        lines.append(f"{i}.png,train,,,ref{i}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")

    runs = {
        "one": ["data.batch_size=2"],
        "two": ["data.batch_size=1", "trainer.devices=2", "trainer.strategy=ddp"],
    }
    for name, overrides in runs.items():
        command = [
            *(
                sys.executable,
                "train.py",
                "debug=default",
                f"model.backbone={tmp_path}/backbone",
                "gt_size=32",
            ),
            *(f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path}/{name}", "data.val=null"),
            *("trainer.max_steps=5", "callbacks.panels.rows=0", "callbacks.ema.decay=0", *overrides),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in runs)
    start = {name: tensor for name, tensor in one.items() if "controlnet" in name and name.endswith("weight")}
    assert any(tensor.abs().max() > 0 for tensor in start.values()), "nothing was learnt"
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
