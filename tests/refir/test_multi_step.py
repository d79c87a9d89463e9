"""The multi-step ControlNet chain, and SeeSR's networks."""

import json

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from rasr.errors import RasrError
from rasr.inference import Restorer, open_kept
from rasr.references import Reference
from rasr.refir import (
    ChainNet,
    InjectionConfig,
    MultiStepChain,
    NoiseSource,
    ReferenceInjector,
    Source,
    find_sites,
    run_target,
)
from rasr.refir.seesr_unet import ImageAttention, load_with_image_attention
from tests.refir.conftest import make_multi_step
from tests.refir.unets import inputs, stock_unet, wake

CONFIG = InjectionConfig.preset("paper", scale=1.0)


@pytest.fixture(scope="module")
def chain():
    return make_multi_step()


@pytest.fixture(scope="module")
def pictures():
    """Photograph (3, 6, 8) and references of other sizes."""
    generator = torch.Generator().manual_seed(7)
    sizes = {"lq": (6, 8), "ref": (36, 20), "other": (16, 16)}
    return {name: torch.rand(3, *size, generator=generator) for name, size in sizes.items()}


@pytest.fixture(scope="module")
def restored(chain, pictures):
    """The photograph with its reference, at the default settings."""
    return restore(chain, pictures["lq"], pictures["ref"])


def restore(chain, lq, ref=None, config=CONFIG, **settings):
    references = [] if ref is None else [Reference("ref", lambda: ref)]
    chosen = {key: settings.pop(key) for key in ("ref_size", "seed") if key in settings}
    settings = {"device": "cpu", "color_fix": "none"} | settings
    return Restorer(ChainNet(chain, config, **chosen), **settings).restore(lq, references, prompt="a cat")


def run(chain, config, images, refs=(), seed=0):
    """A target with its references, straight through the driver."""
    size = [side // chain.vae_factor for side in images.shape[-2:]]
    with torch.inference_mode(), ReferenceInjector(chain.unet, config) as injector:
        target = chain.prepare(images, "", NoiseSource(seed, size))
        sources = [
            Source(
                chain.prepare(ref, "", NoiseSource(seed + 1, [s // chain.vae_factor for s in ref.shape[-2:]]))
            )
            for ref in refs
        ]
        return run_target(chain, injector, target, sources=sources).latents


def test_ddpm_step_is_the_schedulers(chain):
    """Mean and variance of Ho et al., at every step, with the same noise."""
    images = torch.rand(1, 3, 32, 32)
    state = chain.prepare(images, "", NoiseSource(0, (16, 16)))
    for step, timestep in enumerate(chain.timesteps):
        prediction = torch.randn_like(state.latents)
        theirs = chain.scheduler.step(
            prediction, timestep, state.latents, generator=torch.Generator().manual_seed(step)
        ).prev_sample
        state.noise._generator.manual_seed(step)
        state = chain.advance(state, prediction, step)
        torch.testing.assert_close(state.latents, theirs, atol=1e-5, rtol=1e-5)
    assert chain.timesteps[-1] < 200 and len(chain.timesteps) == 5


def test_seesr_timesteps():
    """50 leading steps of SD's schedule with offset 1."""
    timesteps = make_multi_step(n_steps=50).timesteps
    assert timesteps[:2] == [981, 961] and timesteps[-1] == 1 and len(timesteps) == 50


def test_zero_strength_is_the_base_model_bit_for_bit(chain, pictures, restored):
    base = restore(chain, pictures["lq"])
    assert torch.equal(restore(chain, pictures["lq"], pictures["ref"], InjectionConfig(scale=0)), base)
    assert torch.equal(restore(chain, pictures["lq"]), base)
    assert (restored - base).abs().max() > 1e-4


def test_the_source_is_what_it_would_be_alone(chain):
    images, ref = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 48, 32)
    source = Source(None)
    with torch.inference_mode(), ReferenceInjector(chain.unet, CONFIG) as injector:
        target = chain.prepare(images, "", NoiseSource(0, (16, 16)))
        source.state = chain.prepare(ref, "", NoiseSource(1, (24, 16)))
        run_target(chain, injector, target, sources=[source])
        alone = chain.prepare(ref, "", NoiseSource(1, (24, 16)))
        for step in range(chain.n_steps - 1):
            alone = chain.advance(alone, chain.predict(alone, step), step)
    assert torch.equal(source.state.latents, alone.latents)


def test_only_the_last_steps_are_injected_into(chain, monkeypatch):
    """40 % of 5 steps are the last two; one joint call per guided batch."""
    steps = []
    inject = ReferenceInjector.inject
    monkeypatch.setattr(
        ReferenceInjector, "inject", lambda self, banks, i, n: steps.append(i) or inject(self, banks, i, n)
    )
    run(chain, CONFIG, torch.rand(1, 3, 32, 32), [torch.rand(1, 3, 32, 32)])
    assert steps == [3, 4]


def test_the_driver_equals_the_official_joint_batch(chain):
    """Rows [uncond T, uncond S, cond T, cond S] in one call, target and source advanced together."""
    images, ref = torch.rand(2, 1, 3, 32, 32)
    config = InjectionConfig.preset("seesr", canvas="own")
    ours = run(chain, config, images, [ref])
    with torch.inference_mode(), ReferenceInjector(chain.unet, config) as injector:
        states = [chain.prepare(x, "", NoiseSource(seed, (16, 16))) for seed, x in enumerate((images, ref))]
        embeds = states[0].prompt_embeds
        for step, timestep in enumerate(chain.timesteps):
            injector.off()
            if config.is_active(step, chain.n_steps):
                injector.joint(target_rows=[0, 2], source_rows=[1, 3])
            latents = torch.cat([state.latents for state in states] * 2)
            text = embeds[[0, 0, 1, 1]]
            down, mid = chain.controlnet(
                latents, timestep, text, controlnet_cond=torch.cat([images, ref] * 2), return_dict=False
            )
            prediction = chain.unet(
                latents,
                timestep,
                text,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
            uncond, cond = prediction.chunk(2)
            guided = uncond + chain.guidance_scale * (cond - uncond)
            states = [chain.advance(s, g[None], step) for s, g in zip(states, guided, strict=True)]
    torch.testing.assert_close(ours, states[0].latents, atol=2e-4, rtol=1e-4)
    assert (ours - run(chain, config, images)).abs().max() > 1e-3


def test_several_references_mix_by_their_shares(chain, pictures):
    def mixed(shares):
        references = [
            Reference(name, lambda name=name: pictures[name], weight=share)
            for name, share in zip(("ref", "other"), shares, strict=True)
        ]
        restorer = Restorer(ChainNet(chain, CONFIG), device="cpu", color_fix="none")
        return restorer.restore(pictures["lq"], references, prompt="a cat")

    only_first = restore(chain, pictures["lq"], pictures["ref"])
    torch.testing.assert_close(mixed((1.0, 0.0)), only_first, atol=2e-5, rtol=0)
    assert (mixed((0.5, 0.5)) - only_first).abs().max() > 1e-4
    assert (mixed((0.5, 0.5)) - mixed((0.2, 0.8))).abs().max() > 1e-5


def test_shared_noise_is_the_same_where_sizes_meet(pictures):
    like = torch.zeros(1, 4, 6, 10), torch.zeros(1, 4, 8, 4)
    drawn = [NoiseSource(5, (8, 10)).draw(x) for x in like]
    assert torch.equal(drawn[0][..., :6, :4], drawn[1][..., :6, :4])
    again = NoiseSource(5, (8, 10))
    assert not torch.equal(again.draw(like[0]), again.draw(like[0]))
    chain = make_multi_step(n_steps=2)
    own = restore(chain, pictures["lq"], pictures["ref"], InjectionConfig(share_noise=False))
    shared = restore(chain, pictures["lq"], pictures["ref"], InjectionConfig(share_noise=True))
    assert (own - shared).abs().max() > 1e-5


@pytest.mark.parametrize(
    "change",
    [
        {"n_steps": 3},
        {"guidance_scale": 4.0},
        {"guidance_scale": 1.0},
        {"conditioning_scale": 0.5},
        {"added_prompt": "sharp"},
        {"negative_prompt": "dull"},
        {"start": "noise"},
    ],
    ids=str,
)
def test_every_setting_matters(restored, pictures, change):
    """Also guidance <= 1, where the official code fails."""
    other = restore(make_multi_step(**change), pictures["lq"], pictures["ref"])
    assert (other - restored).abs().max() > 1e-5


def test_the_seed_is_the_images_own(chain, pictures, restored):
    """The result does not depend on what was restored before."""
    restore(chain, pictures["other"][:, :4, :4])
    assert torch.equal(restore(chain, pictures["lq"], pictures["ref"]), restored)
    assert not torch.equal(restore(chain, pictures["lq"], pictures["ref"], seed=1), restored)


def test_its_references_cannot_be_kept(chain):
    with pytest.raises(RasrError, match="kept references need a one-step model"):
        open_kept("kept", ChainNet(chain, CONFIG))


def save(chain: MultiStepChain, folder) -> None:
    for name in ("vae", "unet", "controlnet", "text_encoder", "tokenizer", "scheduler"):
        getattr(chain, name).save_pretrained(folder / name)


def test_a_saved_directory_loads_the_same(chain, pictures, restored, tmp_path):
    save(chain, tmp_path)
    again = MultiStepChain.from_pretrained(tmp_path, n_steps=5, guidance_scale=2.0)
    assert torch.equal(restore(again, pictures["lq"], pictures["ref"]), restored)
    (tmp_path / "controlnet" / "config.json").unlink()
    with pytest.raises(RasrError, match="cannot load"):
        MultiStepChain.from_pretrained(tmp_path)
    with pytest.raises(RasrError, match="vae, unet, controlnet"):
        MultiStepChain.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"start": "hq"}, "start='hq'"), ({"n_steps": 0}, "n_steps=0"), ({"n_steps": 2.5}, "n_steps=2.5")],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(RasrError, match=message):
        make_multi_step(**change)


def make_seesr(net, folder, dim=12):
    """`net` with image transformers in SeeSR's own format, and the features they look at."""
    attention = ImageAttention(net, dim)
    wake(net, seed=8)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    config = {k: v for k, v in net.config.items() if k != "_name_or_path"}
    config |= {"use_image_cross_attention": True, "image_cross_attention_dim": dim}
    (folder / "config.json").write_text(json.dumps(config))
    return attention, torch.randn(1, 9, dim)


class TestSeeSR:
    def test_image_transformers_run_after_the_text_transformers(self, tmp_path):
        unet = stock_unet()
        attention, embeds = make_seesr(unet, tmp_path)
        shapes = {name: tuple(p.shape) for name, p in unet.named_parameters()}
        for name, shape in shapes.items():
            if ".image_attentions." in name:  # shaped as its text transformer but for the features' width
                text = shapes[name.replace(".image_attentions.", ".attentions.")]
                is_wider = name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
                assert shape == ((text[0], 12) if is_wider else text)
        order = []
        for name, module in unet.named_modules():
            if name.split(".")[-2:-1] and name.split(".")[-2] in ("attentions", "image_attentions"):
                module.register_forward_hook(lambda *_, name=name: order.append(name))
        with torch.inference_mode(), attention.looking_at(embeds):
            out = unet(**inputs(1)).sample
        # A forward hook runs after its module's earlier hooks: the text transformer reports last.
        assert order[:2] == ["down_blocks.0.image_attentions.0", "down_blocks.0.attentions.0"]
        assert len(order) == 2 * 16
        with torch.inference_mode(), attention.looking_at(embeds + 1):
            assert (unet(**inputs(1)).sample - out).abs().max() > 1e-3
        with pytest.raises(RasrError, match="image_embedder"):
            unet(**inputs(1))

    def test_64_attention_calls_and_18_sites_in_execution_order(self, tmp_path):
        unet = stock_unet()
        attention, embeds = make_seesr(unet, tmp_path)
        calls = []
        names = {module: name for name, module in unet.named_modules()}
        for module, name in names.items():
            if name.endswith((".attn1", ".attn2")):
                module.register_forward_pre_hook(lambda m, _: calls.append(names[m]))
        with torch.inference_mode(), attention.looking_at(embeds):
            unet(**inputs(1))
        assert len(calls) == 64
        assert [site.name for site in find_sites(unet)] == calls[28::2]
        families = [site.name.split(".")[2] for site in find_sites(unet)]
        assert families == ["attentions", "image_attentions"] * 9

    def test_a_directory_of_seesr_loads_without_its_code(self, tmp_path):
        unet = stock_unet()
        attention, embeds = make_seesr(unet, tmp_path)
        loaded, other = load_with_image_attention(UNet2DConditionModel, tmp_path)
        with torch.inference_mode():
            with attention.looking_at(embeds):
                expected = unet(**inputs(1)).sample
            with other.looking_at(embeds):
                assert torch.equal(loaded(**inputs(1)).sample, expected)
        file = tmp_path / "diffusion_pytorch_model.safetensors"
        tensors = load_file(file)
        tensors.pop("up_blocks.1.image_attentions.0.norm.weight")
        save_file(tensors, file)
        with pytest.raises(
            RasrError, match=r"1 tensors missing, 0 unexpected, first up_blocks\.1\.image_att"
        ):
            load_with_image_attention(UNet2DConditionModel, tmp_path)

    def test_the_whole_chain(self, pictures, tmp_path):
        chain = make_multi_step(n_steps=2)
        save(chain, tmp_path)
        for name, cls in (("unet", UNet2DConditionModel), ("controlnet", ControlNetModel)):
            make_seesr(cls.from_pretrained(tmp_path, subfolder=name), tmp_path / name)
        with pytest.raises(RasrError, match="image_embedder=DAPE"):
            MultiStepChain.from_pretrained(tmp_path)

        def embed(images):
            return images.mean((2, 3))[:, None].repeat(1, 5, 4)

        loaded = MultiStepChain.from_pretrained(tmp_path, n_steps=2, image_embedder=embed)
        base = restore(loaded, pictures["lq"])
        out = restore(loaded, pictures["lq"], pictures["ref"])
        assert (out - base).abs().max() > 1e-4
        other = MultiStepChain.from_pretrained(tmp_path, n_steps=2, image_embedder=lambda x: embed(x) + 1)
        assert not torch.equal(restore(other, pictures["lq"]), base)
