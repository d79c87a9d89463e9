"""The frozen one-step super-resolution backbone, in the manner of OSEDiff (rasr paper, section 3.1).

VAE, UNet, CLIP text encoder and noise schedule of any diffusers-format Stable Diffusion directory. One UNet
evaluation at the last timestep turns the latents of the enlarged LR image into those of the restored image.
Does not resize, pad, tile or fix colours: see `rasr.inference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from rasr.backbones.files import DEFAULT_HUB_ID, load_parts, load_vae, osediff_mark, save_parts
from rasr.backbones.osediff_weights import merge_osediff
from rasr.backbones.unet_passes import (
    EncoderOutput,
    check_supported,
    install_text_gate,
    run_decoder,
    run_encoder,
)
from rasr.backbones.vae import SizeContract, decode_latents, encode_latents
from rasr.errors import RasrError

PROMPT_CACHE_SIZE = 1024
"""Texts kept by `encode_prompt`: 1024 SD-2.1 embeddings are 320 MB in fp32, half of it in bf16."""


class OneStepBackbone(SizeContract, nn.Module):
    """`sr = D(x0(E(lq_up)))` with one UNet step (OSEDiff, section 3.2).

    Tensors: `lq_up` and `sr` are (B, 3, H, W) in [0, 1], RGB, float32; H and W are multiples of
    `size_multiple`. Latents are (B, C, H/f, W/f), already times the VAE's scaling factor. All weights are
    frozen unless `make_trainable` is called.

    Args:
        vae: image autoencoder.
        unet: text-conditioned UNet with epsilon prediction.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        noise_scheduler: only its `alphas_cumprod` is used.
        timestep: the one step's diffusion time; None means the schedule's last (999 on SD-2.1).
        sample_posterior: draw the VAE latent (as OSEDiff's code does) instead of taking its mode. The mode is
            the default because it makes the output a function of the input.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        noise_scheduler: DDPMScheduler,
        *,
        timestep: int | None = None,
        sample_posterior: bool = False,
    ) -> None:
        super().__init__()
        if noise_scheduler.config.prediction_type != "epsilon":
            raise RasrError(
                f"the scheduler predicts {noise_scheduler.config.prediction_type!r}; the backbone needs an "
                "epsilon-prediction model such as stable-diffusion-2-1-base (not -2-1, which predicts v)"
            )
        check_supported(unet)
        self.vae = vae
        self.unet = unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.noise_scheduler = noise_scheduler
        n_steps = noise_scheduler.config.num_train_timesteps
        self.timestep = n_steps - 1 if timestep is None else timestep
        if not 0 <= self.timestep < n_steps:
            raise RasrError(f"timestep={timestep} is outside the schedule; give 0 .. {n_steps - 1}")
        self.sample_posterior = sample_posterior
        self.osediff_weights: str | None = None
        self.alpha_bar = float(noise_scheduler.alphas_cumprod[self.timestep])
        self._prompt_cache: dict[str, Tensor] = {}
        install_text_gate(unet)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        path: str = DEFAULT_HUB_ID,
        *,
        torch_dtype: torch.dtype = torch.float32,
        timestep: int | None = None,
        sample_posterior: bool = False,
        osediff_weights: str | Path | None = None,
    ) -> OneStepBackbone:
        """Loads a diffusers-format directory or hub repository (safetensors only).

        Args:
            path: directory with `vae/ unet/ text_encoder/ tokenizer/ scheduler/`, or a hub id.
            torch_dtype: dtype of the weights.
            timestep: see the class.
            sample_posterior: see the class.
            osediff_weights: `osediff.pkl` or its safetensors form, to be merged (`merge_osediff`).

        Raises:
            RasrError: the directory is incomplete, neither it nor the hub repository can be reached, or the
                OSEDiff weights do not fit.
        """
        path = str(path)
        # Merging into weights that were rounded already would round them twice.
        load_dtype = torch_dtype if osediff_weights is None else torch.float32
        parts = load_parts(path, torch_dtype=load_dtype, text_dtype=torch_dtype)
        backbone = cls(**parts, timestep=timestep, sample_posterior=sample_posterior)
        backbone.osediff_weights = osediff_mark(path)
        if osediff_weights is not None:
            backbone.merge_osediff(osediff_weights)
            backbone.unet.to(torch_dtype)
            backbone.vae.to(torch_dtype)
        return backbone

    def merge_osediff(self, path: str | Path) -> None:
        """Merges OSEDiff's weights (`rasr.backbones.osediff_weights`) into UNet and VAE, once and for good.

        A reference branch must be built before: it is a copy of the base weights (`build_rasr_net` does so).
        """
        if self.osediff_weights is not None:
            raise RasrError(
                f"the backbone already holds the OSEDiff weights {self.osediff_weights}; leave out "
                "osediff_weights, or give a base model"
            )
        merge_osediff(path, self.unet, self.vae)
        self.osediff_weights = str(path)

    def save_pretrained(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes the diffusers-format folder that `from_pretrained` (and a StableDiffusionPipeline) reads.

        Args:
            path: the folder.
            dtype: of the tensors on disk; None is their own.
        """
        parts = {
            "vae": self.vae,
            "unet": self.unet,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "scheduler": self.noise_scheduler,
        }
        save_parts(Path(path), parts, dtype=dtype, osediff_weights=self.osediff_weights)

    def make_trainable(self, parts: Sequence[str] = ("vae", "unet")) -> None:
        """Lets VAE, UNet or both learn (to train a backbone from nothing); the text encoder stays frozen."""
        if not parts or not set(parts) <= {"vae", "unet"}:
            raise RasrError(
                f"trainable={list(parts)}: the parts that can learn are vae and unet; give one or both"
            )
        for part in parts:
            getattr(self, part).requires_grad_(True)

    def encode_prompt(self, prompt: Sequence[str]) -> Tensor:
        """Texts -> (B, 77, D) embeddings in the UNet's dtype; each distinct text is encoded once and kept."""
        new = [text for text in dict.fromkeys(prompt) if text not in self._prompt_cache]
        if len(self._prompt_cache) + len(new) > PROMPT_CACHE_SIZE:
            self._prompt_cache.clear()
            new = list(dict.fromkeys(prompt))
        if new:
            tokens = self.tokenizer(
                new,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            device = self.text_encoder.get_input_embeddings().weight.device
            # A validation pass under inference_mode may fill the cache that a training step reads: the kept
            # tensors must be ordinary ones. Autocast would make their dtype depend on who asked first.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                embeds = self.text_encoder(tokens.input_ids.to(device))[0]
            self._prompt_cache.update(zip(new, embeds.unbind(0), strict=True))
        weight = self.unet.conv_in.weight
        return torch.stack([self._prompt_cache[text] for text in prompt]).to(weight.device, weight.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> latents (B, C, H/f, W/f), times the scaling factor."""
        return encode_latents(self.vae, images, sample=self.sample_posterior)

    def predict_x0(self, latents: Tensor, noise_pred: Tensor) -> Tensor:
        """`x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)`, in float32 (1/sqrt(abar) is 14.6 at t = 999)."""
        x0 = latents.float() - (1 - self.alpha_bar) ** 0.5 * noise_pred.float()
        return x0 / self.alpha_bar**0.5

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B, 3, H, W) images in [0, 1], float32."""
        return decode_latents(self.vae, latents)

    def encode_unet(self, latents: Tensor, prompt_embeds: Tensor) -> EncoderOutput:
        """UNet encoder and mid block on (B, C, h, w) latents."""
        return run_encoder(self.unet, latents, self.timestep, prompt_embeds)

    def decode_unet(
        self,
        encoded: EncoderOutput,
        prompt_embeds: Tensor,
        text_blocks: Sequence[int] | None = None,
        features: list[Tensor] | None = None,
    ) -> Tensor:
        """UNet decoder; (B, C, h, w) noise prediction. `features` gets the output of every block."""
        return run_decoder(self.unet, encoded, prompt_embeds, text_blocks, features)

    def features(self, lq_up: Tensor, prompt: Sequence[str]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the UNet makes of images (B, 3, H, W): latents x0 and the outputs of its decoder's blocks."""
        self.check_size(lq_up)
        latents, prompt_embeds = self.encode(lq_up), self.encode_prompt(prompt)
        features: list[Tensor] = []
        encoded = self.encode_unet(latents, prompt_embeds)
        noise_pred = self.decode_unet(encoded, prompt_embeds, features=features)
        return self.predict_x0(latents, noise_pred), tuple(features)

    def restore_latents(self, latents: Tensor, prompt: Sequence[str]) -> Tensor:
        """The one step of the UNet without a reference: latents (B, C, h, w) -> float32 latents of `sr`."""
        prompt_embeds = self.encode_prompt(prompt)
        noise_pred = self.decode_unet(self.encode_unet(latents, prompt_embeds), prompt_embeds)
        return self.predict_x0(latents, noise_pred)

    def check_size(self, images: Tensor) -> None:
        """Raises a RasrError unless `images` is (B, 3, H, W) with H and W multiples of `size_multiple`."""
        multiple = self.size_multiple
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or images.shape[2] % multiple
            or images.shape[3] % multiple
        ):
            raise RasrError(
                f"got images of shape {tuple(images.shape)}; the backbone wants (B, 3, H, W) with H and W "
                f"multiples of {multiple} (rasr.inference.Restorer pads for you)"
            )

    def forward(self, lq_up: Tensor, prompt: Sequence[str]) -> Tensor:
        """Restores without a reference.

        Args:
            lq_up: (B, 3, H, W) in [0, 1], LR image resized to the HR grid.
            prompt: B texts.

        Returns:
            sr: (B, 3, H, W) in [0, 1].
        """
        self.check_size(lq_up)
        return self.decode(self.restore_latents(self.encode(lq_up), prompt))


def load_base_vae(path: str, torch_dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """The VAE alone of a diffusers-format directory or hub repository, frozen: all that references need.

    Raises:
        RasrError: as `OneStepBackbone.from_pretrained`; or OSEDiff's weights were merged into that directory,
            which the reference must not pass.
    """
    path = str(path)
    vae, mark = load_vae(path, torch_dtype), osediff_mark(path)
    if mark is not None:
        raise RasrError(f"{path} holds the OSEDiff weights {mark}; give the base model it was made from")
    return vae.requires_grad_(False).eval()
