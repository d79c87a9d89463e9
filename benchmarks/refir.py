"""ReFIR: seconds per image without reference, with a computed and with a kept one; memory of the injection.

    python -m benchmarks.refir              about two minutes on two CPU cores
    python -m benchmarks.refir --weights sd21-base --size 512 --device cuda

The peers: the paper reports 2.2 times its base (SeeSR+ReFIR, 2048x2048, A100); in the same run, the official
way of a joint batch of target and reference, and the explicit similarity matrix of the gate.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.common import describe_machine
from rasr.device import resolve_device
from rasr.fusion.attention.operations import adain, fuse, gate_tokens, mean_direction, spatial_gate
from rasr.fusion.injection import InjectionFusion
from rasr.inference import open_kept
from rasr.models import RASRNet, load_rasr_net, make_tiny_backbone
from rasr.references import Reference
from rasr.refir import InjectionConfig, ReferenceInjector, with_fusion

CONFIG = InjectionConfig.preset("onestep")
PAPER_RATIO = 170.7 / 76.5
"""Table 3: SeeSR+ReFIR over SeeSR."""
CHANNELS, HEADS = 320, 5
"""SD-2.1's last decoder block, where a 2048x2048 image has 65,536 tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", help="as infer.py's weights=; a small random backbone without")
    parser.add_argument("--size", type=int, default=256, help="side of target and reference, pixels")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, after one to warm up")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--side", type=int, default=2048, help="side of the image in the memory part, pixels")
    parser.add_argument("--explicit-side", type=int, default=1024, help="largest side with the L x L matrix")
    parser.add_argument("--keys", type=int, default=4096, help="tokens attended to; 0: all, minutes at 2048")
    parser.add_argument("--part", choices=("gate", "explicit", "injection"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        sys.stdout.write(f"{peak_memory(args.part, args.side, args.keys)}\n")
        return
    write(f"{describe_machine(resolve_device(args.device), ('diffusers',))}\n\n")
    time_images(args)
    compare_memory(args)


def time_images(args: argparse.Namespace) -> None:
    """Seconds per image on the one-step backbone, and the size of a kept bank."""
    device = resolve_device(args.device)
    if args.weights:
        net = load_rasr_net(args.weights)
    else:
        net = RASRNet(make_tiny_backbone(vae_channels=(32, 64, 64, 64), unet_channels=(64, 128, 256, 256)))
    net = with_fusion(net, InjectionFusion(CONFIG, ref_size=None)).to(device).eval()
    backbone, fusion = net.backbone, net.fusion
    target, ref = torch.rand(2, 1, 3, args.size, args.size, device=device)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        reference = Reference("ref", lambda: ref[0].cpu(), key="0" * 64)
        store = open_kept(folder, net)
        store.put(reference, fusion.keep(backbone, ref))
        kept_bytes = store.file(reference).stat().st_size
        bank = fusion.prepare(backbone, store.get(reference))

        def kept() -> None:
            tensors = {name: tensor.to(device) for name, tensor in store.get(reference).items()}
            net.restore(target, [fusion.prepare(backbone, tensors)], conditioning_scale=1.0)

        def joint() -> None:
            embeds = backbone.encode_prompt(["", ""])
            latents = backbone.encode(torch.cat([target, ref]))
            with ReferenceInjector(backbone.unet, CONFIG) as injector:
                injector.joint(target_rows=[0], source_rows=[1])
                prediction = backbone.decode_unet(backbone.encode_unet(latents, embeds), embeds)
            backbone.decode(backbone.predict_x0(latents, prediction))  # both rows, as there

        runs = {
            "base, no reference": lambda: net.restore(target),
            "+ReFIR, computed": lambda: net.restore(target, ref, conditioning_scale=1.0),
            "+ReFIR, kept bank": kept,
            "joint batch (official way)": joint,
        }
        seconds = median_seconds(runs, args.repeats, device)
    base = seconds["base, no reference"]
    write(f"one step, {args.size}x{args.size}, {device}, {args.weights or 'small random backbone'}\n")
    for name, value in seconds.items():
        write(f"  {name:<28}{value:8.3f} s   {value / base:5.2f} x base\n")
    write(f"  {'paper (SeeSR, 50 steps)':<28}{'':>10}   {PAPER_RATIO:5.2f} x base\n")
    write(f"  kept bank: {kept_bytes / 1e6:.2f} MB on disk, {bank.nbytes / 1e6:.2f} MB in memory\n")
    write(f"  kept bank of SD-2.1 at 512x512: {sd21_bank_bytes(512) / 1e6:.1f} MB (float16, computed)\n\n")


def median_seconds(
    runs: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Medians, the runs taking turns so that a busy machine is unfair to none."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def sd21_bank_bytes(side: int) -> int:
    """Float16 attention inputs of the nine decoder sites."""
    latent = side // 8
    return (
        2
        * 3
        * sum((latent // factor) ** 2 * channels for factor, channels in ((4, 1280), (2, 640), (1, 320)))
    )


def compare_memory(args: argparse.Namespace) -> None:
    """Peak memory of one gate, by the identity and by the matrix, and of a whole injection."""
    write(f"memory at SD-2.1's last decoder block ({CHANNELS} channels), float32, a process each\n")
    small, large, some = args.explicit_side, args.side, args.keys
    runs = [("gate", large, some), ("gate", small, some), ("explicit", small, some)]
    # The memory of attention does not depend on its keys: shown where all of them take seconds only.
    runs += [("injection", small, 0), ("injection", small, some), ("injection", large, some)]
    for part, side, keys in runs:
        command = [sys.executable, __file__, "--part", part, "--side", str(side), "--keys", str(keys)]
        start = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        tokens = (side // 8) ** 2
        label = {"gate": "gate, identity", "explicit": "gate, L x L matrix"}
        label["injection"] = f"injection, {keys or 'all'} keys"
        write(f"  {label[part]:<24}{side}x{side} (L = {tokens:>6,}): {float(done.stdout) / 1e6:9.0f} MB ")
        write(f"above its inputs, {time.perf_counter() - start:.0f} s with start\n")
    matrix = 4 * (args.side // 8) ** 4
    write(f"  the matrix alone at {args.side}x{args.side}: {matrix / 1e6:9.0f} MB (computed)\n")


def peak_memory(part: str, side: int, keys: int) -> float:
    """Bytes that a part needs at its peak beyond its inputs; target and reference are of one size."""
    tokens = (side // 8) ** 2
    features = [torch.randn(1, CHANNELS, side // 8, side // 8) for _ in range(2)]
    qkv = [torch.randn(1, HEADS, tokens, CHANNELS // HEADS) for _ in range(5 if part == "injection" else 0)]
    gc.collect()
    before = reset_peak()
    with torch.inference_mode():
        if part == "explicit":
            x, y = (f.flatten(2)[0] / (f.flatten(2)[0].norm(dim=0) + 1e-8) for f in features)
            similarity = (x.T @ y).mean(1)
            (similarity - similarity.min()) / (similarity.max() - similarity.min() + 1e-8)
        else:
            gate = spatial_gate(features[0], mean_direction(features[1]))
        if part == "injection":
            query = qkv[0]
            key, value, ref_key, ref_value = (t[:, :, : keys or tokens] for t in qkv[1:])
            o_intra = F.scaled_dot_product_attention(query, key, value)
            o_inter = F.scaled_dot_product_attention(query, ref_key, ref_value)
            adain(fuse(o_intra, [(o_inter, 0.5 * gate_tokens(gate, tokens))]), o_intra)
    return peak() - before


def reset_peak() -> float:
    """Starts the kernel's peak of resident memory anew; returns what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> float:
    """Peak of resident memory in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
