"""The same numbers as the official functions on the same tensors (recorded from csguoh/ReFIR at 4a6eca9)."""

import json

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from rasr.fusion.attention.operations import adain, mean_direction, spatial_gate
from rasr.fusion.attention.processor import JOINT
from rasr.refir import InjectionConfig, InjectionState, ReferenceAttnProcessor
from rasr.refir.canvas import shared_canvas

pytestmark = pytest.mark.shared_data

HEADS, HEAD_DIM = 4, 16
TARGET_ROWS, SOURCE_ROWS = (0, 2), (1, 3)


@pytest.fixture
def arrays(shared_data):
    path = shared_data.parent / "spec" / "refir_parity.npz"
    if not path.is_file():
        pytest.skip(f"no recorded arrays at {path}")
    return {name: torch.from_numpy(value) for name, value in np.load(path).items()}


def test_rows_are_as_assumed(arrays):
    meta = json.loads(bytes(arrays["meta_json"].numpy()).decode())
    assert meta["rows"] == "[uncond T, uncond S, cond T, cond S]"
    assert (meta["heads"], meta["head_dim"], meta["HW"]) == (HEADS, HEAD_DIM, [8, 12])


def test_gate(arrays):
    gate = spatial_gate(arrays["gate_X"], mean_direction(arrays["gate_Y"]))
    torch.testing.assert_close(gate, arrays["gate_mask"], atol=2e-5, rtol=0)


def test_adain(arrays):
    out = adain(arrays["adain_feat"], arrays["adain_ref"])
    torch.testing.assert_close(out, arrays["adain_out"], atol=1e-5, rtol=0)


def test_layer_weights(arrays):
    """Recorded per attention call 28..63; the self-attentions among them are every other one."""
    config = InjectionConfig.preset("seesr")
    ours = torch.tensor([config.layer_weight(n, 18) for n in range(18)])
    torch.testing.assert_close(ours, arrays["layer_weight"][::2].float(), atol=1e-6, rtol=0)


def make_attention(weights: dict[str, torch.Tensor] | None = None) -> Attention:
    """An attention with identity projections, or with given ones."""
    attention = Attention(HEADS * HEAD_DIM, heads=HEADS, dim_head=HEAD_DIM)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        layer = attention.get_submodule(name)
        key = name.replace(".", "_")
        layer.weight.data = torch.eye(HEADS * HEAD_DIM) if weights is None else weights[f"sx_w_{key}_weight"]
    bias = attention.to_out[0].bias
    bias.data = torch.zeros_like(bias) if weights is None else weights["sx_w_to_out_0_bias"]
    return attention.requires_grad_(False)


class Fixed(torch.nn.Module):
    """Stands for a projection whose result is known."""

    def __init__(self, result: torch.Tensor) -> None:
        super().__init__()
        self.result = result

    def forward(self, _):
        return self.result


def run_joint(attention: Attention, x: torch.Tensor, mask: torch.Tensor, strength: float) -> torch.Tensor:
    state = InjectionState(InjectionConfig.preset("supir"), JOINT)
    state.target_rows, state.source_rows, state.gates = TARGET_ROWS, SOURCE_ROWS, {"gate": [mask]}
    attention.set_processor(ReferenceAttnProcessor(state, "site", "gate", strength, attention.processor))
    return attention(x)


@pytest.mark.parametrize(
    ("output", "mask", "call", "scale"),
    [
        ("sa_out_l28_s06", "sa_mask", 28, 0.6),
        ("sa_out_l30_s06", "sa_mask", 30, 0.6),
        ("sa_out_l46_s06", "sa_mask", 46, 0.6),
        ("sa_out_l62_s10", "sa_mask", 62, 1.0),
        ("sa_out_l46_s10_smallmask", "sa_mask_small", 46, 1.0),
        ("sa_out_plain", "sa_mask", 46, 0.0),
    ],
)
def test_seesr_attention(arrays, output, mask, call, scale):
    """Query, key and value are given; the recorded output is the one before the out-projection."""
    attention = make_attention()
    for name in ("q", "k", "v"):
        value = arrays[f"sa_{name}"].view(4, HEADS, 96, HEAD_DIM).transpose(1, 2).flatten(2)
        setattr(attention, f"to_{name}", Fixed(value))
    strength = scale * InjectionConfig.preset("seesr").layer_weight((call - 28) // 2, 18)
    ours = run_joint(attention, attention.to_q.result, arrays[mask], strength)
    torch.testing.assert_close(ours, arrays[output], atol=1e-5, rtol=0)
    if scale and call > 30:  # the first sites are injected into too little to tell
        assert (ours - arrays["sa_out_plain"]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("output", "scale"), [("sx_out_s10", 1.0), ("sx_out_s05", 0.5), ("sx_out_plain", 0.0)]
)
def test_supir_attention(arrays, output, scale):
    """SUPIR's whole attention module, with its projections."""
    ours = run_joint(make_attention(arrays), arrays["sx_x"], arrays["sx_mask"], scale)
    torch.testing.assert_close(ours, arrays[output], atol=1e-5, rtol=0)
    rows = list(SOURCE_ROWS)
    torch.testing.assert_close(ours[rows], arrays["sx_out_plain"][rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_shared_canvas(arrays, case):
    lq, ref = (arrays[f"pad{case}_{name}"].float() / 255 for name in ("lq", "ref"))
    ours = (shared_canvas(lq, ref) * 255).round().to(torch.uint8)
    assert torch.equal(ours, arrays[f"pad{case}_cat"])
