"""Attention that also looks at a reference: gate, mixture and alignment of ReFIR (NeurIPS 2024)."""
