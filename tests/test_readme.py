"""The README's command lines and Python lines work as they stand."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rasr.config.options import read_options
from rasr.image_io import write_png
from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
from rasr.retrieval import ColorGradientEncoder, build_index
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
    build_rasr_net(str(tmp_path / "sd21-base")).save_pretrained(tmp_path / "weights" / "rasr-small")
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
    assert [shlex.split(line)[1] for line in lines] == ["infer.py", *replacements]
    for line in lines:
        python, script, *arguments = shlex.split(line)
        assert python == "python"
        done = run_entry(script, *arguments, *replacements[script], cwd=desk)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for output in ("quick", "restored"):
        assert (desk / output / "blurry.png").is_file()
    assert "results.jsonl" in {path.name for path in (desk / "restored").iterdir()}


def evaluate_lines() -> list[str]:
    """The commands of the section Evaluate; continued lines are joined, loops rolled out."""
    section = README.split("## Evaluate\n")[1].split("\n## ")[0]
    text = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ")
    lines = []
    for line in text.splitlines():
        loop = re.fullmatch(r"for (\w+) in (.+?); do (.+); done", line)
        if loop:
            lines += [loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()]
        elif not line.startswith("#"):
            lines.append(line)
    return lines


def run_on_own_weights(line: str):
    return pytest.param(line, marks=pytest.mark.slow) if "weights=rasr.safetensors" in line else line


@pytest.fixture
def scores_desk(tmp_path) -> Path:
    """A user's folder with what the section Evaluate names: images, and outputs of the tables' rows."""
    rows = [f"results/cufed5/{row}" for row in ("seesr", "seesr_refir", "seesr_refir_spread/0")]
    rows += ["results/cufed5/seesr_refir_spread/1", "results/rasr_flickr30/osediff", "results/wr_sr/osediff"]
    for option in read_options(REPOSITORY / "conf" / "options" / "table.yaml").values():
        if "psnr" in option["table"]["metrics"]:
            rows += [row["folder"] for row in option["table"]["rows"].values() if "folder" in row]
    sets = [f"outputs/testsets/{name}" for name in ("rasr_flickr30", "wr_sr", "cufed5")]
    sharp = ["restored", "originals", "seesr_images", "osediff_images", *rows, *(f"{one}/gt" for one in sets)]
    for folder in ("references", "photos", *sharp):
        write_png(torch.rand(3, 32, 32), tmp_path / folder / "a.png")
    for folder in ("lr", *(f"{one}/lq" for one in sets)):
        write_png(torch.rand(3, 8, 8), tmp_path / folder / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    "line", [run_on_own_weights(line) for line in evaluate_lines() if "evaluate.py" in line]
)
def test_evaluate_lines(scores_desk, line):
    """Replaced is what a newcomer's machine lacks: official weights, metrics with weights, hours."""
    python, script, *arguments = shlex.split(line)
    assert python == "python"
    if "weights=rasr.safetensors" in arguments:
        make_tiny_backbone().save_pretrained(scores_desk / "sd21-base")
        save_weights(build_rasr_net(str(scores_desk / "sd21-base")), scores_desk / "rasr")
        build_index(scores_desk / "photos", scores_desk / "photos.index", ColorGradientEncoder())
    for name in re.findall(r"[\w-]+\.pth", line):
        arch = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
        torch.save(arch.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4).state_dict(), scores_desk / name)
    free = (
        "table=refir2",
        "table=refir7",
    )  # no images here: all their metrics want weights
    replaced = ["size=32", "repeats=1"] if "complexity=" in line else ["metrics=[psnr]"]
    done = run_entry(script, *arguments, *([] if set(free) & set(arguments) else replaced), cwd=scores_desk)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    if "complexity=" not in line and not set(free) & set(arguments):
        tables = list(scores_desk.rglob("table.json"))
        rows = [row for path in tables for row in json.loads(path.read_text("utf-8"))["rows"]]
        assert any(value is not None for row in rows for value in row["values"])


@pytest.mark.parametrize("line", [line for line in evaluate_lines() if "evaluate.py" not in line])
def test_lines_that_make_the_images_of_a_table(line):
    """They run for hours: every key exists, and none is missing."""
    python, *words = shlex.split(line)
    if words[:2] == ["-m", "rasr.tools"]:
        name, arguments = f"tools/{words[2]}", words[3:]
    else:
        name, arguments = words[0].removesuffix(".py"), words[1:]
    with initialize_config_dir(version_base="1.3", config_dir=str(REPOSITORY / "conf")):
        cfg = compose(name, arguments)
    assert python == "python"
    assert OmegaConf.missing_keys(cfg) <= {"index"}  # of experiment=table5: the sweep sets it


def test_python_block(desk, monkeypatch):
    monkeypatch.chdir(desk)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert (desk / "restored.png").is_file()


def test_make_block_names_real_targets():
    makefile = (REPOSITORY / "Makefile").read_text()
    lines = blocks("bash")[0].split("\n")
    assert lines[:2] == ["make demo", "make test"]
    assert all(re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE) for line in lines if line)


def test_what_it_says_of_the_code_exists():
    text = README.split("## The code")[1].split("##")[0]
    places = re.findall(r"[`(]([\w./]+(?:/|\.py|\.md))[`)]", text)
    assert len(places) > 7
    assert [place for place in places if not (REPOSITORY / place).exists()] == []


def test_picture_is_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (REPOSITORY / path).is_file()
