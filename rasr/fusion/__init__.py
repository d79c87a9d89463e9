"""How references enter a restoration: one file per way, and the seam between them and the network (`base`).

`residual`: the RASR paper's branch. `correspondence`: places are matched, detail goes where it belongs.
"""
