"""RASRNet: the one-step backbone plus a reference fusion (rasr paper, Eq. 2 and 6, Fig. 3).

The one forward that a reader must see. Retrieval, resizing and tiling live elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rasr.backbones.one_step import OneStepBackbone
from rasr.errors import RasrError
from rasr.fusion.base import Fused, ReferenceFusion, ReferenceUse, Restoration
from rasr.models.pretrained_folder import PretrainedFolder


class RASRNet(PretrainedFolder, nn.Module):
    """Restores `lq_up` conditioned on reference images.

    Tensors: `lq_up`, references and `sr` are (B, 3, H, W) in [0, 1], RGB, float32, with H and W of `lq_up`
    multiples of `backbone.size_multiple`; references may have another size.

    Args:
        backbone: frozen one-step backbone (trainable only in the backbone's own training, without a fusion).
        fusion: how references enter (`rasr.fusion`); None leaves the backbone alone.
        color_fix: colour fix that the images want where none is asked for (`rasr.inference.color_fix`).
            Diffusion backbones drift in colour; a backbone trained on pixels does not, and "none" suits it.
    """

    def __init__(
        self,
        backbone: OneStepBackbone,
        fusion: ReferenceFusion | None = None,
        *,
        color_fix: str = "adain",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion
        self.color_fix = color_fix
        if fusion is not None and not fusion.is_attached:
            fusion.attach(backbone)

    def forward(self, lq_up: Tensor, ref: Any = None, **options: Any) -> Tensor:
        """Restores a batch, (B, 3, H, W) -> (B, 3, H, W); the arguments are those of `restore`."""
        return self.restore(lq_up, ref, **options).sr

    def restore(
        self,
        lq_up: Tensor,
        ref: Any = None,
        *,
        prompt: Sequence[str] | None = None,
        conditioning_scale: float | Tensor = 0.5,
    ) -> Fused:
        """Restores a batch, and says where its detail comes from.

        Args:
            lq_up: (B, 3, H, W), LR resized to the HR grid.
            ref: reference images (B, 3, H', W'); or a list of what `prepare` gives, one entry per reference;
                or None for the backbone alone.
            prompt: B texts; None means empty ones.
            conditioning_scale: strength of the references, a number or (B, 1, 1, 1): w in Eq. 6, where the
                paper has 1 in training and 0.5 at inference. The number 0 is the backbone alone, bit for bit;
                a tensor's 0 is one strength of many.
        """
        prompt = [""] * lq_up.shape[0] if prompt is None else prompt
        is_off = not self.training and not isinstance(conditioning_scale, Tensor) and conditioning_scale == 0
        if ref is None or is_off:
            return Fused(self.backbone(lq_up, prompt))
        fusion, backbone = self.fusion, self.backbone
        if fusion is None:
            raise ValueError("this RASRNet has no reference fusion; call it without ref")

        # 1. references: whatever depends on them alone
        backbone.check_size(lq_up)
        prepared = list(ref) if isinstance(ref, list | tuple) else [self.prepare(ref)]

        # 2. UNet encoder on the LQ latents: frozen, so autograd records nothing here
        prompt_embeds = backbone.encode_prompt(prompt)
        latents = backbone.encode(lq_up)
        features: list[Tensor] | None = [] if fusion.acts_on_image else None
        with fusion.watching(backbone, prepared, conditioning_scale):
            encoded = backbone.encode_unet(latents, prompt_embeds)

            # 3. the fusion between the halves, and the UNet decoder
            encoded = fusion.inject(backbone, encoded, prepared, conditioning_scale)
            noise_pred = backbone.decode_unet(encoded, prompt_embeds, fusion.text_blocks, features)

        # 4. image
        x0 = backbone.predict_x0(latents, noise_pred)
        sr = backbone.decode(x0)
        if features is None:
            return Fused(sr)

        # 5. the fusion on the image
        restored = Restoration(lq_up, sr, x0, tuple(features))
        return fusion.fuse(backbone, restored, prepared, conditioning_scale)

    @property
    def size_multiple(self) -> int:
        """See `OneStepBackbone`."""
        return self.backbone.size_multiple

    @property
    def default_strength(self) -> float:
        """`conditioning_scale` where none is given."""
        return 0.5 if self.fusion is None else self.fusion.default_strength

    def check_references(self, count: int) -> None:
        """Raises a RasrError unless the net can take so many references together."""
        if count and self.fusion is None:
            raise RasrError("these weights have no reference fusion; restore without a reference")
        most = self.fusion.max_references if count else None
        if most is not None and count > most:
            raise RasrError(
                f"references={count}: fusion={self.fusion.name} takes {most}; give fusion=correspondence, or "
                "add method=refir"
            )

    def prepare_for(self, ref: Tensor | Mapping[str, Tensor], use: ReferenceUse) -> Any:
        """A reference (1, 3, H', W') of any size, or what was stored of one, for a photograph's tiles."""
        fusion, backbone = self.fusion, self.backbone
        if isinstance(ref, Tensor):
            kept = fusion.keep(backbone, ref, use)
        else:
            kept = fusion.from_disk(dict(ref), use.tile)
        return fusion.prepare(backbone, kept, use.weight)

    def prepare(self, ref: Any, *, weight: float = 1.0) -> Any:
        """What the fusion makes of references, for any number of calls with it.

        Args:
            ref: images (B, 3, H', W'), what the fusion's `keep` gave, or `ReferenceFeatures`.
            weight: share of the reference among several.
        """
        if self.fusion is None:
            raise RasrError("these weights have no reference fusion; restore without a reference")
        if isinstance(ref, Tensor):
            if not self.fusion.keeps_any_size:
                self.backbone.check_size(ref)
            ref = self.fusion.keep(self.backbone, ref)
        return self.fusion.prepare(self.backbone, ref, weight)

    def train(self, mode: bool = True) -> RASRNet:
        """Keeps frozen parts in evaluation mode; only what is trainable follows `mode`."""
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self


def count_parameters(net: nn.Module) -> tuple[int, int]:
    """(trainable, total) parameter counts; shared parameters count once."""
    parameters = list(net.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
