"""OneStepBackbone: the formula, the halves of the UNet, files and their errors."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from rasr.errors import RasrError
from rasr.models import OneStepBackbone, make_tiny_backbone

PROMPT = ["a cat", ""]


def test_output_is_an_image_of_the_input_size(backbone, images):
    sr = backbone(images["lq_up"], PROMPT)
    assert sr.shape == images["lq_up"].shape
    assert sr.dtype == torch.float32
    assert sr.min() >= 0 and sr.max() <= 1
    assert sr.std() > 0


def test_unet_halves_equal_the_original_forward(backbone, images):
    latents = backbone.encode(images["lq_up"])
    embeds = backbone.encode_prompt(PROMPT)
    ours = backbone.decode_unet(backbone.encode_unet(latents, embeds), embeds)
    theirs = backbone.unet(latents, backbone.timestep, embeds).sample
    assert torch.equal(ours, theirs)


def test_the_vae_runs_in_channels_last_on_a_cpu_and_gives_what_it_gives_otherwise(backbone, images):
    orders = []
    for part in (backbone.vae.encoder, backbone.vae.decoder):
        part.conv_in.register_forward_pre_hook(
            lambda _, args: orders.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
    latents = backbone.encode(images["lq_up"])
    sr = backbone.decode(latents)
    assert orders == [True, True]
    assert latents.is_contiguous() and sr.is_contiguous()
    factor = backbone.vae.config.scaling_factor
    plain = backbone.vae.encode(images["lq_up"] * 2 - 1).latent_dist.mode() * factor
    torch.testing.assert_close(latents, plain, atol=1e-5, rtol=1e-5)
    plain = backbone.vae.decode(latents / factor).sample.clamp(-1, 1) / 2 + 0.5
    torch.testing.assert_close(sr, plain, atol=1e-5, rtol=1e-5)


def test_text_blocks_switch_text_in_single_decoder_blocks(backbone, images):
    latents = backbone.encode(images["lq_up"])
    embeds = backbone.encode_prompt(PROMPT)
    encoded = backbone.encode_unet(latents, embeds)
    full = backbone.decode_unet(encoded, embeds)
    assert torch.equal(backbone.decode_unet(encoded, embeds, (0, 1, 2, 3)), full)
    # Block 0 of an SD UNet has no attention at all, so only it may be left out without effect.
    assert torch.equal(backbone.decode_unet(encoded, embeds, (1, 2, 3)), full)
    for kept in [(2, 3), (1, 3), (1, 2)]:
        assert not torch.equal(backbone.decode_unet(encoded, embeds, kept), full)


SD21_SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("schedule", [None, SD21_SCHEDULE], ids=["tiny", "sd21"])
def test_x0_equals_the_schedulers(backbone, schedule):
    if schedule is not None:
        parts = (backbone.vae, backbone.unet, backbone.text_encoder, backbone.tokenizer)
        backbone = OneStepBackbone(*parts, DDPMScheduler(**schedule, clip_sample=False))
        assert backbone.timestep == 999
        assert backbone.alpha_bar**-0.5 == pytest.approx(14.65, abs=0.01)
    generator = torch.Generator().manual_seed(0)
    latents, noise_pred = torch.randn(2, 1, 4, 8, 8, generator=generator)[:, :1]
    scheduler = backbone.noise_scheduler
    theirs = scheduler.step(noise_pred, backbone.timestep, latents).pred_original_sample
    torch.testing.assert_close(backbone.predict_x0(latents, noise_pred), theirs, atol=1e-5, rtol=1e-5)


def test_timestep_is_a_setting(backbone, images, tmp_path):
    backbone.save_pretrained(tmp_path)
    other = OneStepBackbone.from_pretrained(tmp_path, timestep=500)
    assert other.alpha_bar > backbone.alpha_bar
    assert not torch.equal(other(images["lq_up"], PROMPT), backbone(images["lq_up"], PROMPT))
    with pytest.raises(RasrError, match="timestep=1000"):
        OneStepBackbone.from_pretrained(tmp_path, timestep=1000)


def test_posterior_mode_is_the_default_and_sampling_an_option(backbone, images, tmp_path):
    assert torch.equal(backbone.encode(images["lq_up"]), backbone.encode(images["lq_up"]))
    backbone.save_pretrained(tmp_path)
    sampling = OneStepBackbone.from_pretrained(tmp_path, sample_posterior=True)
    assert not torch.equal(sampling.encode(images["lq_up"]), sampling.encode(images["lq_up"]))


def test_prompt_matters_and_is_encoded_once(backbone, images, monkeypatch):
    out = backbone(images["lq_up"], ["cat", "dog"])
    assert not torch.equal(out, backbone(images["lq_up"], ["cat", "cat"]))

    def fail(*args, **kwargs):
        raise AssertionError("text encoder ran again")

    monkeypatch.setattr(backbone.text_encoder, "forward", fail)
    again = backbone(images["lq_up"], ["cat", "dog"])
    assert torch.equal(out, again)


def test_prompt_cache_filled_in_inference_mode_serves_training(backbone, images):
    with torch.inference_mode():
        backbone.encode_prompt(PROMPT)
    backbone.make_trainable()
    backbone(images["lq_up"], PROMPT).mean().backward()
    assert backbone.unet.conv_in.weight.grad.abs().sum() > 0


def test_everything_is_frozen_until_made_trainable(backbone):
    assert not any(p.requires_grad for p in backbone.parameters())
    backbone.make_trainable()
    assert all(p.requires_grad for p in backbone.unet.parameters())
    assert all(p.requires_grad for p in backbone.vae.parameters())
    assert not any(p.requires_grad for p in backbone.text_encoder.parameters())


def test_tiny_backbone_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone(backbone):
    state = torch.random.get_rng_state()
    same, other = make_tiny_backbone(seed=0), make_tiny_backbone(seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    ours = backbone.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in same.state_dict().items())
    assert any(not torch.equal(ours[k], v) for k, v in other.state_dict().items())


def test_saved_directory_loads_the_same_and_is_a_diffusers_pipeline(backbone, images, tmp_path):
    backbone.save_pretrained(tmp_path)
    again = OneStepBackbone.from_pretrained(tmp_path)
    assert torch.equal(again(images["lq_up"], PROMPT), backbone(images["lq_up"], PROMPT))
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(pipeline.unet.conv_in.weight, backbone.unet.conv_in.weight)


def test_wrong_size_is_named(backbone):
    with pytest.raises(RasrError, match=r"\(1, 3, 64, 65\).*multiples of 16"):
        backbone(torch.rand(1, 3, 64, 65), [""])


def test_incomplete_directory_is_named(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(RasrError, match="vae missing"):
        OneStepBackbone.from_pretrained(tmp_path)


def test_missing_weight_file_is_named(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(RasrError, match="cannot load the backbone"):
        OneStepBackbone.from_pretrained(tmp_path)


def test_unreachable_hub_id_is_one_line(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RasrError, match=r"cannot load the backbone 'no-such/model'") as caught:
        OneStepBackbone.from_pretrained("no-such/model")
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_not_there_is_no_hub_id(tmp_path):
    with pytest.raises(RasrError, match=f"there is no backbone directory {tmp_path}/lost/weights") as caught:
        OneStepBackbone.from_pretrained(tmp_path / "lost" / "weights")
    assert "go online" not in str(caught.value)


def test_v_prediction_is_refused(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(RasrError, match="epsilon"):
        OneStepBackbone.from_pretrained(tmp_path)
