"""The README's command lines and Python lines work as they stand."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from rasr.image_io import write_png
from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
from tests.helpers import REPOSITORY, run_entry

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def desk(tmp_path) -> Path:
    """A user's folder with what the README's examples name."""
    for category in ("cats", "dogs"):
        for n in range(3):
            write_png(torch.rand(3, 64, 64), tmp_path / "photos" / category / f"{n}.png")
    for name in ("blurry.jpg", "lq.png", "ref.png"):
        write_png(torch.rand(3, 16, 16), tmp_path / name)
    (tmp_path / "train.csv").write_text("image\nphotos/cats/0.png\nphotos/dogs/1.png\n")
    make_tiny_backbone().save_pretrained(tmp_path / "sd21-base")
    net = build_rasr_net(str(tmp_path / "sd21-base"))
    save_weights(net, tmp_path / "outputs" / "demo" / "rasr" / "weights")
    return tmp_path


def test_use_block_runs_from_index_to_restoration(desk):
    """Line by line; replaced is what a newcomer's machine lacks: weights of DINOv2 and VGG, a GPU, hours."""
    replacements = {
        "index.py": ["encoder=color_gradient"],
        "train.py": [
            "loss=mse_only",
            "trainer=cpu",
            "trainer.max_steps=2",
            "gt_size=64",
            "data.num_workers=0",
            "data.batch_size=2",
        ],
        "infer.py": ["device=cpu"],
    }
    lines = blocks("bash")[1].strip().splitlines()
    assert [shlex.split(line)[1] for line in lines] == list(replacements)
    for line in lines:
        python, script, *arguments = shlex.split(line)
        assert python == "python"
        done = run_entry(script, *arguments, *replacements[script], cwd=desk)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (desk / "restored" / "blurry.png").is_file()
    assert "results.jsonl" in {path.name for path in (desk / "restored").iterdir()}


def test_evaluate_line(desk):
    line = re.search(r"`python (evaluate\.py [^`]*)`", README).group(1)
    for folder in ("restored", "originals"):
        write_png(torch.rand(3, 32, 32), desk / folder / "a.png")
    script, *arguments = shlex.split(line)
    done = run_entry(script, *arguments, cwd=desk)
    assert done.returncode == 0, done.stderr
    assert (desk / "scores" / "metrics.json").is_file()


def test_python_block(desk, monkeypatch):
    monkeypatch.chdir(desk)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert (desk / "restored.png").is_file()


def test_make_block_names_real_targets():
    makefile = (REPOSITORY / "Makefile").read_text()
    lines = blocks("bash")[0].split("\n")
    assert lines[:2] == ["make demo", "make test"]
    assert all(re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE) for line in lines if line)


def test_map_names_what_exists():
    table = README.split("## Map of the code")[1].split("##")[0]
    places = re.findall(r"`([\w./]+(?:/|\.py))`", table)
    assert len(places) > 10
    missing = [
        p for p in places if not (REPOSITORY / p).exists() and not list(REPOSITORY.glob(f"rasr/**/{p}"))
    ]
    assert not missing


def test_picture_is_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (REPOSITORY / path).is_file()
