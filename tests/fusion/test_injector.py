"""ReferenceInjector on UNets of SD-2.1's, SeeSR's and SDXL's layout."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from rasr.errors import RasrError
from rasr.refir import InjectionConfig, ReferenceAttnProcessor, ReferenceInjector, find_sites
from tests.refir.unets import STOCK, inputs, rows_of, stock_unet, wake

ALWAYS = InjectionConfig.preset("seesr", active=1.0, canvas="own")
TARGET, SOURCE = [0, 2], [1, 3]
BOTH = {"target_rows": TARGET, "source_rows": SOURCE}


@pytest.fixture(scope="module")
def unet():
    return stock_unet(layers=2)


def call(unet, arguments):
    with torch.inference_mode():
        return unet(**arguments).sample


def joint(unet, config, arguments):
    with ReferenceInjector(unet, config) as injector:
        injector.joint(**BOTH)
        return call(unet, arguments)


def recorded(unet, config, references, target, *, step=0, n_steps=1, weights=None):
    """Record every reference, inject them all into the target."""
    weights = weights or [1 / len(references)] * len(references)
    with ReferenceInjector(unet, config) as injector:
        banks = []
        for reference, weight in zip(references, weights, strict=True):
            with injector.record(step) as bank:
                call(unet, reference)
            banks.append(bank.with_weight(weight))
        with injector.inject(banks, step, n_steps):
            return call(unet, target)


class LiteralProcessor:
    """The paper and SeeSR's code word by word on a joint batch of four rows: softmax, matrix and loops."""

    def __init__(self, index, features, scale):
        self.index, self.features, self.scale = index, features, scale

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        def heads(layer):
            return layer(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q, k, v = heads(attn.to_q), heads(attn.to_k), heads(attn.to_v)

        def attention(i, j):
            scores = q[i] @ k[j].transpose(-1, -2) / q.shape[-1] ** 0.5
            return scores.softmax(-1) @ v[j]

        out = torch.stack([attention(i, i) for i in range(4)])
        weight = 0.5 * (1 - math.cos(math.pi * self.index / 18))
        for t, s in zip(TARGET, SOURCE, strict=True):
            x, y = (F.normalize(self.features[0][row].flatten(1), dim=0) for row in (t, s))
            similarity = (x.T @ y).sum(1)
            mask = (similarity - similarity.min()) / (similarity.max() - similarity.min())
            m = self.scale * weight * mask[None, :, None]
            intra, fused = out[t].clone(), (1 - m) * out[t] + m * attention(t, s)
            for head in range(attn.heads):
                for channel in range(fused.shape[-1]):
                    f, o = fused[head, :, channel], intra[head, :, channel]
                    std_f, std_o = ((x.var() + 1e-5).sqrt() for x in (f, o))
                    out[t, head, :, channel] = (f - f.mean()) / std_f * std_o + o.mean()
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def test_joint_batch_equals_the_literal_algorithm(unet):
    arguments = inputs(4)
    ours = joint(unet, ALWAYS, arguments)
    handles, processors, index = [], dict(unet.attn_processors), 0
    for block in unet.up_blocks[1:]:
        features = [None]

        def keep(_, args, kwargs, features=features):
            features[0] = kwargs["hidden_states"]

        handles.append(block.register_forward_pre_hook(keep, with_kwargs=True))
        for transformer in block.attentions:
            for layer in transformer.transformer_blocks:
                layer.attn1.set_processor(LiteralProcessor(index, features, 0.6))
                index += 1
    literal = call(unet, arguments)
    for handle in handles:
        handle.remove()
    unet.set_attn_processor(processors)
    assert index == 18
    torch.testing.assert_close(ours, literal, atol=2e-5, rtol=0)
    assert (ours - call(unet, arguments))[TARGET].abs().max() > 0.05


def test_the_source_rows_are_untouched(unet):
    arguments = inputs(4)
    assert torch.equal(joint(unet, ALWAYS, arguments)[SOURCE], call(unet, arguments)[SOURCE])
    with ReferenceInjector(unet, ALWAYS) as injector, injector.record():
        assert torch.equal(call(unet, arguments), call(unet, arguments))


def test_zero_strength_is_the_base_model_bit_for_bit(unet):
    arguments = inputs(4)
    base = call(unet, arguments)
    off = InjectionConfig.preset("seesr", scale=0.0)
    assert torch.equal(joint(unet, off, arguments), base)
    assert torch.equal(recorded(unet, off, [arguments], arguments), base)
    with ReferenceInjector(unet, ALWAYS):
        assert torch.equal(call(unet, arguments), base)


@pytest.mark.parametrize("config", [ALWAYS, InjectionConfig.preset("supir")], ids=["seesr", "supir"])
def test_record_then_inject_equals_the_joint_batch(unet, config):
    arguments = inputs(4)
    expected = joint(unet, config, arguments)[TARGET]
    ours = recorded(unet, config, [rows_of(arguments, SOURCE)], rows_of(arguments, TARGET))
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


def test_copies_of_one_reference_are_that_reference(unet):
    arguments = inputs(4)
    reference, target = rows_of(arguments, SOURCE), rows_of(arguments, TARGET)
    for mode in ("separate", "replace"):
        config = InjectionConfig.preset("seesr", active=1.0, mode=mode)
        one = recorded(unet, config, [reference], target)
        three = recorded(unet, config, [reference] * 3, target, weights=[0.5, 0.3, 0.2])
        torch.testing.assert_close(three, one, atol=2e-5, rtol=0)
    other = rows_of(inputs(4, seed=9), SOURCE)
    two = recorded(unet, ALWAYS, [reference, other], target, weights=[0.5, 0.5])
    assert (two - recorded(unet, ALWAYS, [reference], target)).abs().max() > 1e-2
    whole = recorded(unet, ALWAYS, [reference, other], target, weights=[1.0, 0.0])
    torch.testing.assert_close(whole, recorded(unet, ALWAYS, [reference], target), atol=2e-5, rtol=0)


def test_unequal_sizes_and_one_reference_row_for_all_targets(unet):
    target, reference = inputs(2, (16, 16)), inputs(1, (24, 8), seed=3)
    out = recorded(unet, ALWAYS, [reference], target)
    assert out.shape == (2, 4, 16, 16)
    assert (out - call(unet, target)).abs().max() > 1e-2
    twice = {k: v.expand(2, *v.shape[1:]) if torch.is_tensor(v) else v for k, v in reference.items()}
    torch.testing.assert_close(recorded(unet, ALWAYS, [twice], target), out, atol=2e-5, rtol=0)


CHANGES = {
    "scale": {"scale": 0.3},
    "layer_schedule": {"layer_schedule": "constant"},
    "gate_site": {"gate_site": "resnet_input"},
    "gate_none": {"gate_site": "none"},
    "align": {"align": "none"},
    "encoder": {"position": "encoder"},
    "both": {"position": "both"},
    "replace": {"mode": "replace"},
    "concat": {"mode": "concat"},
}


def test_every_choice_changes_the_output(unet):
    arguments = inputs(4)
    outputs = {"default": joint(unet, ALWAYS, arguments)}
    for name, change in CHANGES.items():
        outputs[name] = joint(unet, InjectionConfig.preset("seesr", active=1.0, **change), arguments)
    names = list(outputs)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert (outputs[a] - outputs[b])[TARGET].abs().max() > 1e-3, (a, b)
        assert torch.equal(outputs[a][SOURCE], outputs["default"][SOURCE])


def test_replace_and_concat_are_what_they_say(unet):
    """With itself as reference, the reference's attention and the attention to both are its own."""
    target = inputs(2)
    base = call(unet, target)
    for mode in ("replace", "concat"):
        config = InjectionConfig(mode=mode, align="none")
        torch.testing.assert_close(recorded(unet, config, [target], target), base, atol=2e-5, rtol=0)
    # AdaIN towards itself changes nothing either.
    torch.testing.assert_close(recorded(unet, InjectionConfig(), [target], target), base, atol=2e-5, rtol=0)


def test_only_the_last_steps_are_injected_into(unet):
    target, reference = inputs(1), inputs(1, seed=4)
    base = call(unet, target)
    config = InjectionConfig(active=0.4)
    moved = [
        not torch.equal(recorded(unet, config, [reference], target, step=step, n_steps=50), base)
        for step in (0, 29, 30, 49)
    ]
    assert moved == [False, False, True, True]


@pytest.mark.parametrize(
    ("active", "n_steps", "expected"),
    [(0.4, 50, 20), (1.0, 50, 50), (0.4, 1, 1), (0.4, 2, 1), (0.1, 5, 1), (0.4, 5, 2)],
)
def test_number_of_active_steps(active, n_steps, expected):
    config = InjectionConfig(active=active)
    assert sum(config.is_active(step, n_steps) for step in range(n_steps)) == expected


def test_everything_is_restored_also_after_an_exception(unet):
    arguments = inputs(4)
    before = dict(unet.attn_processors)
    base = call(unet, arguments)
    with pytest.raises(KeyboardInterrupt), ReferenceInjector(unet, ALWAYS) as injector:
        installed = [p for p in unet.attn_processors.values() if isinstance(p, ReferenceAttnProcessor)]
        assert len(installed) == 18
        with injector.record():
            raise KeyboardInterrupt
    assert unet.attn_processors == before
    assert not any(block._forward_pre_hooks for block in unet.up_blocks)
    assert injector.state.mode == "off"
    assert torch.equal(call(unet, arguments), base)
    with ReferenceInjector(unet, ALWAYS), pytest.raises(RuntimeError, match="has an injector already"):
        ReferenceInjector(unet, ALWAYS).__enter__()


def test_a_processor_found_at_installation_keeps_its_place(unet):
    """A custom one runs in "off" and "record", and is back on exit."""
    calls = []

    class Counting(AttnProcessor2_0):
        def __call__(self, *args, **kwargs):
            calls.append(1)
            return super().__call__(*args, **kwargs)

    before = dict(unet.attn_processors)
    site = find_sites(unet)[5]
    custom = Counting()
    site.attention.set_processor(custom)
    try:
        with ReferenceInjector(unet, ALWAYS) as injector:
            call(unet, inputs(1))
            with injector.record():
                call(unet, inputs(1))
        assert len(calls) == 2
        assert site.attention.processor is custom
    finally:
        unet.set_attn_processor(before)


def test_off_ends_the_joint_batch(unet):
    arguments = inputs(4)
    with ReferenceInjector(unet, ALWAYS) as injector:
        injector.joint(**BOTH)
        injector.off()
        assert torch.equal(call(unet, arguments), call(unet, arguments))
        assert injector.state.mode == "off"


def test_wrong_calls_are_named(unet):
    with ReferenceInjector(unet, ALWAYS) as injector:
        with injector.record() as bank:
            call(unet, inputs(1))
        with pytest.raises(ValueError, match="do not sum to 1"), injector.inject([bank.with_weight(0.5)]):
            pass
        with pytest.raises(ValueError, match="do not sum to 1"), injector.inject([]):
            pass
        with pytest.raises(ValueError, match="1 target rows but 2"):
            injector.joint(target_rows=[0], source_rows=[1, 2])
    other = InjectionConfig.preset("supir")
    with (
        ReferenceInjector(unet, other) as injector,
        pytest.raises(ValueError, match=r"resnets\.0"),
        injector.inject([bank]),
    ):
        pass


def test_site_order_is_execution_order():
    unet = stock_unet()
    order = []
    names = {module: name for name, module in unet.named_modules()}
    for module in names:
        if names[module].endswith("attn1"):
            module.register_forward_pre_hook(lambda m, _: order.append(names[m]))
    call(unet, inputs(1))
    assert [site.name for site in find_sites(unet, "both")] == order
    decoder = [site.name for site in find_sites(unet)]
    assert decoder == [name for name in order if name.startswith("up_blocks")]
    assert len(decoder) == 9
    assert [s.name for s in find_sites(unet, "encoder")] == [n for n in order if n not in decoder]


def test_site_counts_of_the_full_models():
    """SD-2.1: 9 decoder self-attentions; SeeSR's count: 18 of 64 calls; SDXL (SUPIR): 36 of 70."""
    sd = STOCK | {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": (5, 10, 20, 20)}
    sdxl = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 64,
    }
    with torch.device("meta"):
        nets = [UNet2DConditionModel(**c) for c in (sd, sd | {"transformer_layers_per_block": 2}, sdxl)]
    assert [len(find_sites(net)) for net in nets] == [9, 18, 36]
    assert [len(find_sites(net, "both")) for net in nets] == [16, 32, 70]
    gates = ReferenceInjector(nets[2], InjectionConfig.preset("supir")).gate_names
    assert gates == [f"up_blocks.{i}.resnets.{j}" for i in (0, 1) for j in range(3)]


def test_sdxl_layout_runs_with_the_supir_preset():
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 2, 4),
        cross_attention_dim=24,
        norm_num_groups=8,
    )
    wake(unet)
    arguments, config = inputs(4), InjectionConfig.preset("supir")
    ours = joint(unet, config, arguments)
    split = recorded(unet, config, [rows_of(arguments, SOURCE)], rows_of(arguments, TARGET))
    torch.testing.assert_close(split, ours[TARGET], atol=2e-5, rtol=0)
    assert (ours - call(unet, arguments))[TARGET].abs().max() > 1e-2


def test_a_unet_without_self_attentions_is_named():
    config = STOCK | {"down_block_types": ("DownBlock2D",) * 4, "up_block_types": ("UpBlock2D",) * 4}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    with pytest.raises(RasrError, match="no transformer self-attention in its decoder"):
        find_sites(unet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 1.5}, "scale=1.5"),
        ({"active": 0}, "active=0"),
        ({"scale": "strong"}, "refir.scale=strong is not a finite number"),
        ({"mode": "swap"}, "mode='swap' is unknown; give one of separate, replace, concat"),
        ({"gate_site": "everywhere"}, "gate_site"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(RasrError, match=message):
        InjectionConfig(**change)
    with pytest.raises(RasrError, match="preset 'best' is unknown"):
        InjectionConfig.preset("best")
