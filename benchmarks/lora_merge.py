"""What merging LoRA saves: the backbone with OSEDiff's LoRA and the reference branch, unmerged and merged."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.common import describe_machine, dtype_of, parser, seconds, table
from benchmarks.sd21 import compile_blocks, make_sd21_backbone
from rasr.backbones.lora import add_lora, lora_layers, merge_lora
from rasr.models import RASRNet, build_rasr_net, make_tiny_backbone


def add_osediff_lora(net: RASRNet, rank: int = 4) -> None:
    """LoRA on what OSEDiff adapts: the UNet's and the VAE encoder's linear layers and convolutions."""
    unet, encoder = net.backbone.unet, net.backbone.vae.encoder
    for part in (unet, encoder):
        targets = [
            name
            for name, module in part.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and "time_emb" not in name
        ]
        add_lora(part, targets, rank=rank, alpha=8)


def main() -> None:
    args = parser(__doc__, size=512, repeats=3).parse_args()
    device, dtype = torch.device(args.device), dtype_of(args)
    backbone = make_tiny_backbone() if args.tiny else make_sd21_backbone(device, dtype)
    net = build_rasr_net(backbone)
    add_osediff_lora(net)
    net.to(device, dtype).eval()
    if args.compile:
        compile_blocks(net)
    lq_up, ref = torch.rand(2, 1, 3, args.size, args.size, device=device).unbind(0)
    cases = {"backbone": lambda: net(lq_up), "backbone and branch": lambda: net(lq_up, ref)}

    def measure() -> list[float]:
        with torch.inference_mode():
            return [seconds(f, repeats=args.repeats, warmup=1, device=device) for f in cases.values()]

    n_layers = len(lora_layers(net))
    unmerged = measure()
    for part in (net.backbone.unet, net.backbone.vae.encoder, net.fusion):
        merge_lora(part)
    if args.compile:
        torch.compiler.reset()
        compile_blocks(net)
    rows = [
        [name, slow, fast, fast / slow] for name, slow, fast in zip(cases, unmerged, measure(), strict=True)
    ]
    print(describe_machine(device, ("diffusers", "peft")))
    print(f"{args.size}x{args.size}, {dtype}, compile={args.compile}, {n_layers} adapted layers\n")
    print(table(["inference", "unmerged s", "merged s", "merged / unmerged"], rows))


if __name__ == "__main__":
    main()
