"""Chain (b): a multi-step SD ControlNet restorer in the manner of SeeSR.

A ControlNet sees the enlarged LR image, DDPM runs from the noised LR latents with classifier-free guidance.
The references run through the same sampler as images of their own. ControlNet and sampler are never hooked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from rasr.backbones.vae import SizeContract, decode_latents, encode_latents
from rasr.errors import RasrError, one_line
from rasr.refir.chains import NoiseSource
from rasr.refir.seesr_unet import ImageAttention, has_image_attention, load_with_image_attention

SUBFOLDERS = ("vae", "unet", "controlnet", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class MultiStepState:
    """An image on its way; rows of what guidance doubles are [uncond, cond], as in the official batch."""

    latents: Tensor
    """(1, C, h, w)."""
    images: Tensor
    """(1, 3, H, W) in [0, 1], what the ControlNet sees."""
    prompt_embeds: Tensor
    """(1 or 2, 77, D)."""
    noise: NoiseSource
    image_embeds: Tensor | None = None
    """(1, tokens, D') for networks of SeeSR's kind."""


class MultiStepChain(SizeContract):
    """`ChainAdapter` over a diffusers UNet with a ControlNet.

    Args:
        vae: image autoencoder.
        unet: text-conditioned UNet (epsilon or v prediction).
        controlnet: takes the LR image on the HR grid, in [0, 1].
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        scheduler: DDPM with the schedule of training.
        n_steps: DDPM steps (SeeSR: 50).
        guidance_scale: classifier-free guidance; 1 or less runs the conditional half only (SeeSR: 5.5).
        conditioning_scale: strength of the ControlNet.
        added_prompt: appended to every prompt.
        negative_prompt: the unconditional half's text.
        start: "lr" starts from the noised LR latents (SeeSR), "noise" from noise alone.
        image_attentions: those of UNet and ControlNet, for networks of SeeSR's kind.
        image_embedder: (1, 3, H, W) in [0, 1] -> (1, tokens, D') image features for these.
    """

    color_fix = "adain"

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDPMScheduler,
        *,
        n_steps: int = 50,
        guidance_scale: float = 5.5,
        conditioning_scale: float = 1.0,
        added_prompt: str = "clean, high-resolution, 8k",
        negative_prompt: str = "dotted, noise, blur, lowres, smooth",
        start: str = "lr",
        image_attentions: tuple[ImageAttention, ...] = (),
        image_embedder: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if start not in ("lr", "noise"):
            raise RasrError(f"start={start!r} is unknown; give lr or noise")
        most = scheduler.config.num_train_timesteps
        if not isinstance(n_steps, int) or not 1 <= n_steps <= most:
            raise RasrError(f"n_steps={n_steps}: give a whole number from 1 to {most}")
        if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise RasrError(f"the scheduler predicts {scheduler.config.prediction_type!r}; give epsilon or v")
        if image_attentions and image_embedder is None:
            raise RasrError(
                "this UNet attends to image features (SeeSR); load it in Python with image_embedder=DAPE, "
                "whose code and weights are SeeSR's own and not part of this project"
            )
        self.vae, self.unet, self.controlnet = vae, unet, controlnet
        self.text_encoder, self.tokenizer, self.scheduler = text_encoder, tokenizer, scheduler
        self.n_steps = n_steps
        self.guidance_scale = guidance_scale
        self.conditioning_scale = conditioning_scale
        self.added_prompt = added_prompt
        self.negative_prompt = negative_prompt
        self.start = start
        self.image_attentions = image_attentions
        self.image_embedder = image_embedder
        scheduler.set_timesteps(n_steps)
        self.timesteps = scheduler.timesteps.tolist()
        for part in self._modules:
            part.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: object) -> MultiStepChain:
        """Loads a diffusers-format directory with a `controlnet/`, or one of SeeSR's.

        Args:
            path: directory with `vae unet controlnet text_encoder tokenizer scheduler`.
            settings: see the class.

        Raises:
            RasrError: the directory is incomplete or a file in it does not fit.
        """
        path = Path(path)
        missing = [name for name in SUBFOLDERS if not (path / name).is_dir()]
        if missing:
            raise RasrError(
                f"{path} is no multi-step restorer: {', '.join(missing)} missing; put all of "
                f"{', '.join(SUBFOLDERS)} into it"
            )
        attentions = []
        nets = {}
        try:
            for name, net_class in (("unet", UNet2DConditionModel), ("controlnet", ControlNetModel)):
                if has_image_attention(path / name):
                    nets[name], attention = load_with_image_attention(net_class, path / name)
                    attentions.append(attention)
                else:
                    nets[name] = net_class.from_pretrained(path, subfolder=name, use_safetensors=True)
            vae = AutoencoderKL.from_pretrained(path, subfolder="vae", use_safetensors=True)
            text_encoder = CLIPTextModel.from_pretrained(path / "text_encoder", use_safetensors=True)
            tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer")
            scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler")
        except OSError as error:
            raise RasrError(
                f"cannot load {path} ({one_line(error, first=True)}); copy the directory again"
            ) from error
        return cls(
            vae,
            nets["unet"],
            nets["controlnet"],
            text_encoder,
            tokenizer,
            scheduler,
            image_attentions=tuple(attentions),
            **settings,
        )

    def prepare(self, images: Tensor, prompt: str, noise: NoiseSource) -> MultiStepState:
        """See `ChainAdapter`. The posterior's mode is taken where SeeSR draws."""
        latents = encode_latents(self.vae, images)
        drawn = noise.draw(latents)
        if self.start == "lr":
            last = torch.tensor([self.scheduler.config.num_train_timesteps - 1], device=latents.device)
            drawn = self.scheduler.add_noise(latents, drawn, last)
        texts = [self.negative_prompt] if self.guidance_scale > 1 else []
        texts.append(", ".join(text for text in (prompt, self.added_prompt) if text))
        embeds = None if self.image_embedder is None else self.image_embedder(images)
        return MultiStepState(drawn, images.to(drawn.dtype), self._encode(texts), noise, embeds)

    def predict(self, state: MultiStepState, step: int) -> Tensor:
        """(1, C, h, w) prediction after guidance."""
        timestep = self.timesteps[step]
        rows = state.prompt_embeds.shape[0]
        latents, images = (tensor.expand(rows, -1, -1, -1) for tensor in (state.latents, state.images))
        with ExitStack() as stack:
            for attention in self.image_attentions:
                stack.enter_context(attention.looking_at(state.image_embeds.expand(rows, -1, -1)))
            down, mid = self.controlnet(
                latents,
                timestep,
                encoder_hidden_states=state.prompt_embeds,
                controlnet_cond=images,
                conditioning_scale=self.conditioning_scale,
                return_dict=False,
            )
            prediction = self.unet(
                latents,
                timestep,
                encoder_hidden_states=state.prompt_embeds,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0]
        if rows == 1:
            return prediction
        uncond, cond = prediction.chunk(2)
        return uncond + self.guidance_scale * (cond - uncond)

    def advance(self, state: MultiStepState, prediction: Tensor, step: int) -> MultiStepState:
        """One DDPM step (Ho et al. 2020, Eq. 6 and 7), with the chain's own noise."""
        timestep = self.timesteps[step]
        before = self.timesteps[step + 1] if step + 1 < self.n_steps else -1
        abars = self.scheduler.alphas_cumprod
        abar = float(abars[timestep])
        abar_before = float(abars[before]) if before >= 0 else 1.0
        alpha = abar / abar_before
        if self.scheduler.config.prediction_type == "epsilon":
            x0 = (state.latents - (1 - abar) ** 0.5 * prediction) / abar**0.5
        else:
            x0 = abar**0.5 * state.latents - (1 - abar) ** 0.5 * prediction
        if self.scheduler.config.clip_sample:
            x0 = x0.clamp(-self.scheduler.config.clip_sample_range, self.scheduler.config.clip_sample_range)
        latents = abar_before**0.5 * (1 - alpha) / (1 - abar) * x0
        latents = latents + alpha**0.5 * (1 - abar_before) / (1 - abar) * state.latents
        if before >= 0:
            deviation = ((1 - abar_before) / (1 - abar) * (1 - alpha)) ** 0.5
            latents = latents + deviation * state.noise.draw(latents)
        return replace(state, latents=latents)

    def decode(self, state: MultiStepState) -> Tensor:
        """See `ChainAdapter`."""
        return decode_latents(self.vae, state.latents)

    def to(self, device: torch.device) -> MultiStepChain:
        """See `ChainAdapter`."""
        for part in self._modules:
            part.to(device)
        return self

    @property
    def _modules(self) -> tuple[torch.nn.Module, ...]:
        return self.vae, self.unet, self.controlnet, self.text_encoder

    def _encode(self, texts: list[str]) -> Tensor:
        """B texts -> (B, 77, D)."""
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        device = self.text_encoder.get_input_embeddings().weight.device
        return self.text_encoder(tokens.input_ids.to(device))[0].to(self.unet.dtype)
