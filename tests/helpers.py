"""What several test folders need."""

import contextlib
import importlib.util
import io
import logging
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch

from rasr.image_io import write_png
from rasr.models import make_tiny_backbone

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_GAN = (
    "loss.weights.gan=0.1",
    # A small vision transformer of the class that timm builds for DINO.
    "+discriminator={_target_: rasr.models.DinoDiscriminator, blocks: [1], width: 8, vit: {_target_: "
    "timm.create_model, model_name: vit_tiny_patch16_224, img_size: 64, depth: 2, embed_dim: 48}}",
)
"""Overrides of `train.py debug=default` that switch the GAN on."""


def wake_zero_convs(net) -> None:
    """Gives a RASRNet's zero-convolutions and LoRA values, as if trained: else the branch adds nothing."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.fusion.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def write_training_set(folder: Path, *, count: int, side: int) -> None:
    """Writes a small `folder/backbone`, and `folder/manifest.csv` of random images with a reference each."""
    make_tiny_backbone(seed=0).save_pretrained(folder / "backbone")
    lines = ["image,split,category,prompt,references"]
    for i in range(count):
        for name in (f"{i}.png", f"references/{i}.png"):
            write_png(torch.rand(3, side, side), folder / name)
        lines.append(f"{i}.png,train,,,references/{i}.png")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def run_entry(script: str, *arguments: str, cwd: Path | str = REPOSITORY) -> subprocess.CompletedProcess:
    """Runs a command of the project as `python SCRIPT ARGUMENTS` would, in this process.

    A process of its own spends ten seconds on imports; one test per entry point does that, the others use
    this.

    Args:
        script: file name in the repository's root.
        arguments: command line.
        cwd: working directory.
    """
    stdout, stderr = io.StringIO(), io.StringIO()
    argv, folder, handlers = sys.argv, os.getcwd(), logging.root.handlers[:]
    level = logging.root.level
    sys.argv = [str(REPOSITORY / script), *map(str, arguments)]
    os.chdir(cwd)
    code = 0
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = argv
        os.chdir(folder)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    return subprocess.CompletedProcess(sys.argv, code, stdout.getvalue(), stderr.getvalue())


def evaluate_in(folder: Path) -> Callable[..., subprocess.CompletedProcess]:
    """`evaluate.py` in a folder that has `sr/`, `other/`, `gt/` and, x1/4, `lq/` with the images a and b."""
    for name in ("a", "b"):
        for kind in ("sr", "other", "gt"):
            write_png(torch.rand(3, 16, 20), folder / kind / f"{name}.png")
        write_png(torch.rand(3, 4, 5), folder / "lq" / f"{name}.png")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return run_entry("evaluate.py", *arguments, cwd=folder)

    run.folder = folder
    return run


def run_logged(script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a script as `run_entry` does, with its log in `stderr`, where pytest would catch it away."""
    log, level = io.StringIO(), logging.root.level
    handler = logging.StreamHandler(log)
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    try:
        done = run_entry(script, *arguments)
    finally:
        logging.root.removeHandler(handler)
        logging.root.setLevel(level)
    done.stderr += log.getvalue()
    return done


def run_keys(script: str, folder: Path, **keys: object) -> subprocess.CompletedProcess:
    """Runs a command in a folder, its keys as arguments."""
    return run_entry(script, *(f"{key}={value}" for key, value in keys.items()), cwd=folder)


def run_tool(name: str, *arguments: str, cwd: Path | str = REPOSITORY) -> subprocess.CompletedProcess:
    """Runs `python -m rasr.tools NAME ARGUMENTS` in this process."""
    return run_entry("rasr/tools/__main__.py", name, *arguments, cwd=cwd)


@contextlib.contextmanager
def import_demo(name: str) -> Iterator[ModuleType]:
    """A module of data/demo, which is no package: its files find each other as when they are started."""
    folder = str(REPOSITORY / "data" / "demo")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location(f"demo_{name}", f"{folder}/{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(folder)
        sys.modules.pop(f"demo_{name}", None)
