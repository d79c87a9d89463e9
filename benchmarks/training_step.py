"""One training step of RASRNet: gradients only where they are needed, against everything in the graph.

Ours: LR encoding, UNet encoder and reference VAE run without a graph, because nothing before the first
injection can learn. The baseline is the same network and loss with a graph through all of it. Both are whole
Lightning steps: forward, full loss with random VGG-16 and DINO weights, backward, clipping, AdamW of
generator and discriminator.

`--count` adds the bytes that autograd keeps for the backward pass at that size, from a run without arithmetic
(fake tensors): exact, and possible where the memory is not there.
"""

from __future__ import annotations

import argparse
import functools
import logging
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.common import describe_machine, parser, peak_gib, reset_peak, synchronize, table
from benchmarks.sd21 import compile_blocks, make_sd21_backbone
from rasr.backbones.lora import cast_frozen
from rasr.backbones.vae import encode_latents
from rasr.image_ops import resize_bicubic
from rasr.losses import RestorationLoss
from rasr.models import DinoDiscriminator, build_rasr_net, make_tiny_backbone
from rasr.training import RASRModule


class EverythingInGraph(RASRModule):
    """The baseline: autograd records the three parts that ours leaves out."""

    def forward(self, batch: dict, conditioning_scale: float) -> Tensor:
        branch = self.net.fusion
        lq_up, ref = batch["lq_up"].requires_grad_(), batch["ref"].requires_grad_()
        features = branch.features_from_latents(encode_latents(branch.vae, ref))
        return self.net(lq_up, features, prompt=batch["prompt"], conditioning_scale=conditioning_scale)


class Downscale(nn.Module):
    """Stands in for the degradation, which has a benchmark of its own."""

    def forward(self, gt: Tensor, seeds: Tensor) -> Tensor:
        return resize_bicubic(gt, (gt.shape[-2] // 4, gt.shape[-1] // 4))


class StepTimes(pl.Callback):
    """Seconds and peak memory of every optimiser step after the first two."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.peak: float | str = "-"

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 2:
            reset_peak(pl_module.device)
        synchronize(pl_module.device)
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        synchronize(pl_module.device)
        if batch_idx >= min(2, trainer.max_steps - 1):
            self.times.append(time.perf_counter() - self.start)
        self.peak = peak_gib(pl_module.device)


def make_loss() -> RestorationLoss:
    """The paper's four terms over a VGG-16 with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vgg16.safetensors"
        tensors = torchvision.models.vgg16().features.state_dict()
        save_file({f"features.{name}": tensor for name, tensor in tensors.items()}, file)
        weights = {"mse": 1.0, "lpips": 2.0, "gram": 1e-3, "gan": 0.1}
        return RestorationLoss(weights, vgg_weights=str(file))


def make_module(cls: type[RASRModule], args: argparse.Namespace) -> RASRModule:
    """The module of a training run, frozen parts in bf16 under bf16-mixed, as train.py has it."""
    backbone = make_tiny_backbone() if args.tiny else make_sd21_backbone()
    net = build_rasr_net(backbone)
    discriminator = DinoDiscriminator(timm.create_model("vit_base_patch16_224.dino", pretrained=False))
    if precision(args) == "bf16-mixed":
        cast_frozen(net, torch.bfloat16)
        cast_frozen(discriminator, torch.bfloat16)
    if args.compile:
        compile_blocks(net)
    optimizer = functools.partial(torch.optim.AdamW, lr=5e-5)
    return cls(net, make_loss(), Downscale(), optimizer, discriminator=discriminator)


def make_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Noise in the form of the data module's batches."""
    size, n = args.size, args.batch
    images = {key: torch.rand(n, 3, size, size) for key in ("gt", "ref")}
    ids = {"prompt": [""] * n, "sample_id": [str(i) for i in range(n)]}
    return images | ids | {"seed": torch.arange(n)}


def precision(args: argparse.Namespace) -> str:
    """bf16-mixed as in the paper's run, unless float32 is asked for; float32 on a CPU by default."""
    dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    return "bf16-mixed" if dtype == "bfloat16" else "32-true"


def run(cls: type[RASRModule], args: argparse.Namespace) -> StepTimes:
    """Trains a few steps on one batch and reports their times."""
    pl.seed_everything(0)
    device = torch.device(args.device)
    module, batch, times = make_module(cls, args), make_batch(args), StepTimes()
    steps = args.repeats + (2 if args.repeats > 1 else 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision(args),
            max_steps=steps,
            gradient_clip_val=1.0,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, DataLoader([batch] * steps, batch_size=None))
    return times


def count_saved_gib(cls: type[RASRModule], args: argparse.Namespace) -> float:
    """GiB that autograd keeps for the generator's backward pass: parameters excepted, each storage once."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    saved: dict[int, int] = {}
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters and storage._cdata not in saved:
            saved[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # keeps the storage, and so its identity
        return tensor

    module = make_module(cls, args)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for owner in module.modules():
            for name, parameter in list(owner._parameters.items()):
                if parameter is not None:
                    owner._parameters[name] = nn.Parameter(
                        mode.from_tensor(parameter), parameter.requires_grad
                    )
            for name, buffer in list(owner._buffers.items()):
                if buffer is not None:
                    owner._buffers[name] = mode.from_tensor(buffer)
        parameters = {p.untyped_storage()._cdata for p in module.parameters()}
        batch = make_batch(args)
        batch["lq_up"] = torch.rand_like(batch["gt"])
        embeds = torch.zeros(77, module.net.backbone.unet.config.cross_attention_dim)
        module.net.backbone._prompt_cache[""] = embeds
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision(args) == "bf16-mixed")
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
            module(batch, 1.0)
    return sum(saved.values()) / 2**30


def main() -> None:
    options = parser(__doc__, size=256, repeats=3)
    options.add_argument("--batch", type=int, default=1, help="images per step (paper: 6 per GPU)")
    options.add_argument("--count", action="store_true", help="count what autograd keeps instead of timing")
    args = options.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    rows, base = [], None
    for name, cls in {"everything in the graph": EverythingInGraph, "ours": RASRModule}.items():
        if args.count:
            value = count_saved_gib(cls, args)
            base = base or value
            rows.append([name, value, value / base])
            continue
        times = run(cls, args)
        value = median(times.times)
        base = base or value
        rows.append([name, value, args.batch / value, value / base, times.peak])
    print(describe_machine(args.device, ("pytorch-lightning", "diffusers", "peft")))
    print(f"batch {args.batch}, {args.size}x{args.size}, {precision(args)}, compile={args.compile}\n")
    if args.count:
        print(table(["kept for the backward pass", "GiB", "ratio"], rows))
    else:
        print(table(["training step", "s", "images/s", "ratio of s", "peak GiB"], rows))


if __name__ == "__main__":
    main()
