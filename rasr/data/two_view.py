"""Pairs of views with known correspondences: a crop of a photograph, and another view of it as its reference.

Photographs of one scene with known correspondences are rare; two views made of one photograph have them
exactly. The reference is turned, scaled, sheared, tilted, bent a little, differently exposed, and now and
then something stands in front of it; sometimes it shows another part of the photograph, or another photograph
of the same category, where nothing corresponds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.checks import check_whole
from rasr.data.dataset import ReferenceDataset, Sample
from rasr.errors import RasrError
from rasr.image_io import to_tensor
from rasr.image_ops import resize_bicubic
from rasr.seeding import SampleRandom, sample_seed

STRIDE = 4
"""Pixels between the places whose correspondence is given."""
OUTSIDE = -1e4
"""Place of what the reference does not show."""


@dataclass(frozen=True)
class ViewRange:
    """How far the reference's view may differ. Choices of this project."""

    turn: float = 10.0
    """Degrees to each side."""
    zoom: float = 1.25
    """Largest factor of size, and its inverse."""
    shear: float = 0.06
    tilt: float = 0.08
    """Change of size across the crop."""
    bend: float = 2.5
    """Amplitude of a smooth displacement, pixels."""
    shift: float = 0.35
    """Distance of the crops' centres, as a share of their side."""
    far: float = 0.1
    """Probability that the reference shows any part of the photograph instead."""
    other: float = 0.08
    """Probability that it is another photograph of the category, where there is one."""
    occluder: float = 0.25
    """Probability that something covers a part of it."""


class TwoViewDataset(ReferenceDataset):
    """A fixed pool of pairs; the same index is the same pair in every epoch, so that features can be kept.

    Samples hold, besides those of :class:`rasr.data.dataset.Sample`, `places` (2, S/4, S/4): where the
    reference shows the centre of each 4x4 patch of `gt`, (x, y) in pixels, `OUTSIDE` where it does not.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        split: str,
        views: int,
        view_range: ViewRange | None = None,
        **settings: Any,
    ) -> None:
        """List the photographs.

        Args:
            source: manifest or folder.
            split: rows to take.
            views: pairs made of each photograph.
            view_range: see the class.
            settings: of :class:`rasr.data.dataset.CropDataset`.
        """
        check_whole("data.views", views, least=1)
        self.views = views
        self.view_range = view_range or ViewRange()
        super().__init__(source, split=split, two_crops=True, **settings)
        if self.gt_size % STRIDE:
            raise RasrError(f"gt_size={self.gt_size}: pairs of views want a multiple of {STRIDE}")

    def __len__(self) -> int:
        return len(self.rows) * self.views

    def row(self, index: int):
        return self.rows[index % len(self.rows)]

    def pixels(self, index: int, reference: int | None):
        return super().pixels(index % len(self.rows), reference)

    def _crop_sample(self, epoch: int, index: int, extra: tuple[str, ...]) -> Sample:
        row, view = self.row(index), index // len(self.rows)
        rng = SampleRandom(sample_seed(self.seed, row.id, view, "views", *extra))
        photo = to_tensor(self._load(index, None))
        photo = self._shrink(photo, rng)
        if self.hflip and rng.chance(0.5):
            photo = photo.flip(-1)
        top, left = self._place(photo.permute(1, 2, 0), rng)
        gt = photo[:, top : top + self.gt_size, left : left + self.gt_size].contiguous()
        ref, places = make_view(photo, (top, left), self.gt_size, self.view_range, rng)
        other = self._other(index, rng)
        if other is not None:
            photo = to_tensor(self._load(other, None))
            spot = self._place(photo.permute(1, 2, 0), rng)
            ref, _ = make_view(photo, spot, self.gt_size, self.view_range, rng)
            places = torch.full_like(places, OUTSIDE)
        return {
            "gt": gt,
            "ref": ref,
            "places": places,
            "prompt": row.prompt,
            "sample_id": f"{row.id}#{view}" + "".join(f" {text}" for text in extra),
            "seed": sample_seed(self.seed, row.id, view, *extra),
        }

    def _shrink(self, photo: Tensor, rng: SampleRandom) -> Tensor:
        """Brings some photographs to a smaller size: a detail is seen at many scales."""
        least = (self.gt_size + 16) / min(photo.shape[-2:])
        factor = rng.uniform(min(1.0, max(0.5, least)), 1.0)
        if factor == 1 or rng.chance(0.3):
            return photo
        size = tuple(max(self.gt_size, round(side * factor)) for side in photo.shape[-2:])
        return resize_bicubic(photo[None], size)[0]

    def _other(self, index: int, rng: SampleRandom) -> int | None:
        category = self.row(index).category
        if not category or not rng.chance(self.view_range.other):
            return None
        own = index % len(self.rows)
        same = [i for i, row in enumerate(self.rows) if row.category == category and i != own]
        return same[rng.integer(len(same))] if same else None


def make_view(
    photo: Tensor, corner: tuple[int, int], size: int, limits: ViewRange, rng: SampleRandom
) -> tuple[Tensor, Tensor]:
    """Makes another view of a crop.

    Args:
        photo: (3, H, W) in [0, 1].
        corner: top and left of the crop.
        size: side of crop and view.
        limits: how far the view may differ.
        rng: draws it.

    Returns:
        The view (3, size, size), and the place (2, size/4, size/4) in it of each 4x4 patch's centre.
    """
    height, width = photo.shape[-2:]
    turn = math.radians(rng.uniform(-limits.turn, limits.turn))
    zoom = math.exp(rng.uniform(-math.log(limits.zoom), math.log(limits.zoom)))
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shear = torch.tensor([[rng.uniform(-limits.shear, limits.shear) for _ in range(2)] for _ in range(2)])
    matrix = rotation / zoom @ (torch.eye(2) + shear)
    tilt = torch.tensor([rng.uniform(-limits.tilt, limits.tilt) for _ in range(2)]) / size
    tilt = tilt * rng.chance(0.5)
    own = torch.tensor([corner[1] + size / 2, corner[0] + size / 2])
    if rng.chance(limits.far):
        centre = torch.tensor([rng.uniform(0, width), rng.uniform(0, height)])
    else:
        centre = own + size * torch.tensor([rng.uniform(-limits.shift, limits.shift) for _ in range(2)])
    margin = size / 2 - 20
    for axis, side in enumerate((width, height)):
        centre[axis] = centre[axis].clamp(min(margin, side / 2), max(side - margin, side / 2))
    bend = _Bend(limits.bend if rng.chance(0.5) else 0.0, size, rng)

    def to_photo(places: Tensor) -> Tensor:
        """(N, 2) places in the view -> in the photograph."""
        offset = places - size / 2
        return centre + (offset @ matrix.T) / (1 + offset @ tilt)[:, None] + bend(places)

    # 1. pixels of the view
    view = to_photo(_grid(size, 1))
    sampled = F.grid_sample(
        photo[None],
        (view / torch.tensor([width, height]) * 2 - 1).reshape(1, size, size, 2),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )[0].clamp(0, 1)

    # 2. where the crop's patches lie in it: the same map, inverted step by step
    target = _grid(size, STRIDE) + torch.tensor([corner[1], corner[0]])
    inverse = torch.linalg.inv(matrix)
    places = size / 2 + (target - centre) @ inverse.T
    for _ in range(8):
        places = places + (target - to_photo(places)) @ inverse.T
    places = places.T.reshape(2, size // STRIDE, size // STRIDE)

    # 3. light, and what stands in front
    sampled = _expose(sampled, rng)
    if rng.chance(limits.occluder):
        sampled, places = _cover(sampled, places, photo, rng)
    is_shown = ((places > 0) & (places < size)).all(0)
    return sampled, torch.where(is_shown, places, OUTSIDE)


class _Bend:
    """A smooth displacement of a few pixels: the sum of two waves per axis."""

    def __init__(self, amplitude: float, size: int, rng: SampleRandom) -> None:
        self.waves = [
            (
                rng.uniform(0, amplitude) / 2,
                2 * math.pi / size * torch.tensor([rng.uniform(-1.5, 1.5) for _ in range(2)]),
                rng.uniform(0, 2 * math.pi),
            )
            for _ in range(4)
        ]

    def __call__(self, places: Tensor) -> Tensor:
        waves = [height * torch.sin(places @ direction + phase) for height, direction, phase in self.waves]
        return torch.stack([waves[0] + waves[1], waves[2] + waves[3]], -1)


def _grid(size: int, stride: int) -> Tensor:
    """(N, 2): (x, y) of the centres of stride x stride patches, row by row."""
    centres = (torch.arange(size // stride) + 0.5) * stride
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def _expose(view: Tensor, rng: SampleRandom) -> Tensor:
    gamma = math.exp(rng.uniform(-0.2, 0.2))
    gain = torch.tensor([rng.uniform(0.93, 1.07) for _ in range(3)])[:, None, None] * rng.uniform(0.85, 1.15)
    return (view.clamp(0, 1) ** gamma * gain).clamp(0, 1)


def _cover(view: Tensor, places: Tensor, photo: Tensor, rng: SampleRandom) -> tuple[Tensor, Tensor]:
    """Lays an ellipse with another part of the photograph over the view."""
    size = view.shape[-1]
    middle = torch.tensor([rng.uniform(0, size), rng.uniform(0, size)])
    axes = torch.tensor([rng.uniform(0.08, 0.28) * size for _ in range(2)])
    top, left = (rng.integer(side - size + 1) for side in photo.shape[-2:])
    patch = photo[:, top : top + size, left : left + size].flip(-2)

    def is_covered(points: Tensor) -> Tensor:
        return ((points - middle[:, None, None]) / axes[:, None, None]).square().sum(0) < 1

    pixels = _grid(size, 1).T.reshape(2, size, size)
    view = torch.where(is_covered(pixels), patch, view)
    return view, torch.where(is_covered(places), OUTSIDE, places)
