"""Seconds per image without a reference, and with one: from its image, its kept latents, its kept features.

RASR's paper (last paragraph of section 4) reports 0.10 s without and 0.15 s with a reference, a ratio of 1.5.
The branch's features are a pure function of the reference, so whatever of it is kept need not be computed.
"""

from __future__ import annotations

import torch

from benchmarks.common import describe_machine, dtype_of, parser, peak_gib, reset_peak, seconds, table
from benchmarks.sd21 import compile_blocks, make_sd21_backbone
from rasr.models import build_rasr_net, make_tiny_backbone


def main() -> None:
    args = parser(__doc__, size=512, repeats=3).parse_args()
    device, dtype = torch.device(args.device), dtype_of(args)
    backbone = make_tiny_backbone() if args.tiny else make_sd21_backbone(device, dtype)
    net = build_rasr_net(backbone).to(device, dtype).eval()
    net.fusion.merge()  # as `load_rasr_net` does
    if args.compile:
        compile_blocks(net)
    lq_up, ref = torch.rand(2, 1, 3, args.size, args.size, device=device).unbind(0)
    with torch.inference_mode():
        z_ref = net.fusion.encode(ref)
        features = net.fusion.features_from_latents(z_ref)
        cases = {
            "without a reference": lambda: net(lq_up),
            "reference from its image": lambda: net(lq_up, ref),
            "from kept latents": lambda: net(lq_up, net.fusion.features_from_latents(z_ref)),
            "from kept features": lambda: net(lq_up, features),
        }
        rows, base = [], None
        for name, function in cases.items():
            reset_peak(device)
            value = seconds(function, repeats=args.repeats, warmup=1, device=device)
            base = base or value
            rows.append([name, value, value / base, peak_gib(device)])
    kept = [z_ref.numel() * 2, sum(t.numel() * 2 for t in features.state_dict().values())]
    print(describe_machine(device, ("diffusers", "peft")))
    print(
        f"{args.size}x{args.size}, {dtype}, compile={args.compile}; kept per image in fp16: "
        f"latents {kept[0] / 2**10:.0f} KiB, features {kept[1] / 2**20:.1f} MiB\n"
    )
    print(table(["inference", "s per image", "ratio (paper: 1.5)", "peak GiB"], rows))


if __name__ == "__main__":
    main()
