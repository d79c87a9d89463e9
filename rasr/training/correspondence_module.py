"""Trains correspondence fusion over a frozen backbone: first what matches what, then what to take over.

Batches are pairs of views (`rasr.data.two_view`), whose correspondences are known. What the frozen backbone
makes of a pair is the same in every epoch and can be kept on disk: a step then costs a fraction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rasr.checks import check_number, check_whole
from rasr.errors import RasrError
from rasr.fusion.base import Restoration
from rasr.fusion.correspondence import CorrespondenceFusion
from rasr.fusion.transfer import PATCH
from rasr.image_io import atomic_path
from rasr.seeding import sample_seed
from rasr.training.matching_loss import coarse_loss, fine_loss, match_error, places_on_grid
from rasr.training.module import RASRModule

SPREAD = 2.0
"""Pixels of error at which a match counts for 0.6 of a right one, to the reliability."""
LOG_EVERY_PSNR = 1e-8


class CorrespondenceModule(RASRModule):
    """Matching (InfoNCE) from the first step; reliability and transfer from `transfer_from` on.

    Args:
        args: of `RASRModule`; its `loss` compares the fused image with the truth where the reference shows
            it, and with the unfused image elsewhere.
        transfer_from: optimiser step at which the transfer begins: before, matches lead nowhere.
        wrong_share: of the pairs, how many get another pair's reference in the transfer.
        transfer_crop: side in pixels of the part of each image that the transfer learns from in a step.
        matching_weight: of the matching terms beside the image's.
        features: folder in which the frozen backbone's outputs are kept, a few MB per pair; None computes
            them in every step.
        kwargs: of `RASRModule`.
    """

    def __init__(
        self,
        *args: Any,
        transfer_from: int = 0,
        wrong_share: float = 0.25,
        transfer_crop: int | None = None,
        matching_weight: float = 0.1,
        features: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.net.fusion, CorrespondenceFusion):
            raise RasrError(
                "CorrespondenceModule trains fusion=correspondence; give model=rasr_correspondence"
            )
        check_whole("module.transfer_from", transfer_from, least=0)
        check_number("module.wrong_share", wrong_share)
        check_number("module.matching_weight", matching_weight)
        if not 0 <= wrong_share <= 1:
            raise RasrError(f"module.wrong_share={wrong_share} is no share; give a value from 0 to 1")
        if transfer_crop is not None:
            check_whole("module.transfer_crop", transfer_crop, least=PATCH)
        self.transfer_from = transfer_from
        self.wrong_share = wrong_share
        self.transfer_crop = transfer_crop
        self.matching_weight = matching_weight
        self.features = None if features is None else Path(features)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Matching terms, and from `transfer_from` on reliability and image terms."""
        # 1. the frozen backbone, on photographs and on references in the photographs' condition
        frozen = self.frozen_features(batch)
        fusion = self.net.fusion

        # 2. matching
        coarse, fine = fusion.head(frozen["x0"], self._blocks(frozen, ""))
        ref_coarse, ref_fine = fusion.head(frozen["ref_x0"], self._blocks(frozen, "ref_"))
        factor = batch["gt"].shape[-1] // fine.shape[-1]
        places = places_on_grid(batch["places"], fine.shape[-2:], factor)
        scales = fusion.head.log_scale.exp()
        terms = {
            "match_coarse": coarse_loss(coarse, ref_coarse, scales[0], places),
            "match_fine": fine_loss(fine, ref_fine, scales[1], places),
        }
        total = self.matching_weight * sum(terms.values())

        # 3. transfer, with the matches as they are
        if self.global_step >= self.transfer_from:
            kept = {"coarse": ref_coarse.detach(), "fine": ref_fine.detach(), "image": batch["ref"]}
            image_terms = self._transfer_terms(batch, frozen, coarse.detach(), fine.detach(), kept)
            terms |= image_terms
            total = (
                total + image_terms["image"] + 0.2 * image_terms["reliability"] + image_terms["restoration"]
            )
        for name, term in terms.items():
            self.log(f"train/loss_{name}", term.detach())
        self.log("train/loss_total", total.detach(), prog_bar=True)
        return self.check_finite(total, batch)

    def _transfer_terms(
        self,
        batch: dict[str, Any],
        frozen: dict[str, Tensor],
        coarse: Tensor,
        fine: Tensor,
        kept: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        fusion, sr, gt = self.net.fusion, frozen["sr"], batch["gt"]
        # 1. some get the reference of the next pair: nothing corresponds
        wrong = torch.rand(len(gt), device=gt.device) < self.wrong_share
        kept = {k: torch.where(wrong.view(-1, *[1] * (v.ndim - 1)), v.roll(1, 0), v) for k, v in kept.items()}
        warped, evidence, found = fusion.lay_over(coarse, fine, kept, sr)
        error, is_shown = match_error(found, batch["places"])
        is_shown = is_shown & ~wrong[:, None, None]

        # 2. how far each match can be trusted
        logits = fusion.reliability(evidence)
        size = logits.shape[-2:]
        right = (-(error / SPREAD).square() / 2).exp() * is_shown
        right = F.interpolate(right[:, None], size, mode="nearest")
        reliability_loss = F.binary_cross_entropy_with_logits(logits, right)

        # 3. a crop of the image: truth where the reference shows it, the unfused image elsewhere
        reliability = torch.sigmoid(logits)
        shown = F.interpolate(is_shown[:, None].float(), size, mode="nearest")
        shown = F.max_pool2d(shown, 3, 1, 1)
        tops, side = self._crop(size)
        cut = (..., slice(tops[0], tops[0] + side[0]), slice(tops[1], tops[1] + side[1]))
        pixels = (..., *(slice(PATCH * s.start, PATCH * s.stop) for s in cut[1:]))
        sr, warped, gt = sr[pixels], warped[pixels], gt[pixels]
        change = fusion.transfer(sr, warped, evidence[cut], reliability[cut])
        fused = sr + change
        mask = F.interpolate(shown[cut], scale_factor=PATCH, mode="nearest")
        target = mask * gt + (1 - mask) * sr
        before = (sr - gt).square().flatten(1).mean(1) + 1e-4
        after = (fused - target).square().flatten(1).mean(1)
        # Every image counts as much: by what share its error falls, as in a mean of decibels.
        terms = {"image": (after / before).mean(), "reliability": reliability_loss}
        restoration = self.loss(fused, target)
        terms["restoration"] = self.loss.total(restoration)
        right = ~wrong
        for name, chosen in (("right", right), ("wrong", wrong)):
            if chosen.any():
                self.log(f"train/reliability_{name}", reliability[chosen].mean().detach())
        return terms

    def _crop(self, size: torch.Size) -> tuple[tuple[int, int], tuple[int, int]]:
        if self.transfer_crop is None:
            return (0, 0), tuple(size)
        side = tuple(min(self.transfer_crop // PATCH, s) for s in size)
        tops = tuple(int(torch.randint(s - t + 1, ()).item()) for s, t in zip(size, side, strict=True))
        return tops, side

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Logs PSNR (dB) without, with a wrong and with the right reference, matches and reliability.

        Returns:
            Pictures (B, 3, S, S) for whoever draws them.
        """
        frozen = self.frozen_features(batch)
        fusion, gt, sr = self.net.fusion, batch["gt"], frozen["sr"]
        restored = Restoration(frozen["lq_up"], sr, frozen["x0"], self._blocks(frozen, ""))
        coarse, fine = fusion.head(frozen["ref_x0"], self._blocks(frozen, "ref_"))
        right = {"coarse": coarse, "fine": fine, "image": batch["ref"]}
        wrong = {name: tensor.roll(1, 0) for name, tensor in right.items()}
        images, provenance = {"bicubic": frozen["lq_up"], "without": sr}, {}
        for name, kept in (("wrong", wrong), ("right", right)):
            fused = fusion.fuse(self.net.backbone, restored, [kept], self.val_conditioning_scale)
            images[name], provenance[name] = fused.sr, fused.provenance
        size = len(gt)

        def log(name: str, value: Tensor) -> None:
            self.log(f"val/{name}", value, batch_size=size, sync_dist=True, prog_bar=name.startswith("psnr"))

        def psnr(image: Tensor) -> Tensor:
            mse = (image.float() - gt).square().mean(dim=(1, 2, 3))
            return (-10 * (mse + LOG_EVERY_PSNR).log10()).mean()

        figures = {name: psnr(image) for name, image in images.items()}
        for name, value in figures.items():
            log(f"psnr_{name}", value)
        log("psnr", figures["right"])
        log("right_minus_wrong", figures["right"] - figures["wrong"])
        error, is_shown = match_error(provenance["right"].place, batch["places"])
        if is_shown.any():
            log("match_error_px", error[is_shown].median())
            log("match_within_2px", (error[is_shown] < 2).float().mean())
        for name, entry in provenance.items():
            log(f"reliability_{name}", entry.strength.mean())
        return {
            "sr": images["right"],
            "lq_up": images["bicubic"],
            "panel": {
                "LR": images["bicubic"],
                "without": sr,
                "wrong": images["wrong"],
                "right": images["right"],
                "truth": gt,
                "reference": batch["ref"],
                "match": match_picture(
                    provenance["right"].place, provenance["right"].strength, gt.shape[-2:]
                ),
            },
        }

    @torch.no_grad()
    def frozen_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the frozen backbone makes of a batch, from the kept ones or computed.

        Returns:
            `lq_up`, `sr` (B, 3, S, S), `x0`, `block0..3` of the photographs, `ref_x0`, `ref_block0..3` of the
            references; float32.
        """
        if self.features is None:
            return self._compute_features(batch)
        parts = []
        for i, name in enumerate(batch["sample_id"]):
            path = self.features / f"{sample_seed(name, int(batch['seed'][i])):016x}.safetensors"
            kept = _read_kept(path)
            if kept is None:
                one = {k: v[i : i + 1] for k, v in batch.items()}
                kept = {k: v.half().cpu() for k, v in self._compute_features(one).items()}
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    save_file({k: v.contiguous() for k, v in kept.items()}, temporary)
            parts.append(kept)
        device = batch["gt"].device
        return {k: torch.cat([part[k] for part in parts]).to(device).float() for k in parts[0]}

    def _compute_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        backbone, fusion = self.net.backbone, self.net.fusion
        lq_up = self.degrade(batch)["lq_up"]
        x0, blocks = backbone.features(lq_up, batch["prompt"])
        sr = backbone.decode(x0)
        ref_x0, ref_blocks = backbone.features(fusion.degrade(backbone, batch["ref"]), [""] * len(lq_up))
        found = {"lq_up": lq_up, "sr": sr, "x0": x0, "ref_x0": ref_x0}
        for prefix, outputs in (("", blocks), ("ref_", ref_blocks)):
            # The head does not read the third block.
            found |= {f"{prefix}block{i}": outputs[i] for i in (0, 1, 3)}
        return {name: tensor.float() for name, tensor in found.items()}

    @staticmethod
    def _blocks(frozen: dict[str, Tensor], prefix: str) -> tuple[Tensor, ...]:
        first, second, last = (frozen[f"{prefix}block{i}"] for i in (0, 1, 3))
        return first, second, last, last


def match_picture(place: Tensor, strength: Tensor, size: torch.Size) -> Tensor:
    """Places (B, 2, h, w) as colours, as bright as the reference was followed: (B, 3, *size)."""
    x, y = place.unbind(1)
    colours = torch.stack([x, y, 1 - (x + y) / 2], 1) * strength[:, None]
    return F.interpolate(colours, size, mode="nearest")


def _read_kept(path: Path) -> dict[str, Tensor] | None:
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (SafetensorError, OSError):  # cut off by a crash: made again
        return None
