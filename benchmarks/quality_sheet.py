"""The contact sheet of `benchmarks.quality`: LR, bicubic, without, with, reference, ground truth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from torch import Tensor

from benchmarks.quality_sets import SCALE, Case, QualitySet
from rasr.drawing import PanelCell, draw_panel
from rasr.image_io import atomic_path, read_image

IMAGES, CELL, MAX_BYTES = 24, 192, 1_500_000
_QUALITIES = range(90, 29, -5)  # of JPEG

Item = TypeVar("Item")


def spread(groups: Sequence[Sequence[Item]], count: int) -> list[Item]:
    """At most `count` items, as evenly from the groups as they allow, evenly spaced within each."""
    shares = [0] * len(groups)
    for _ in range(min(count, sum(map(len, groups)))):
        open_groups = [index for index, group in enumerate(groups) if shares[index] < len(group)]
        shares[min(open_groups, key=lambda index: shares[index])] += 1
    return [
        group[(2 * i + 1) * len(group) // (2 * share)]
        for group, share in zip(groups, shares, strict=True)
        for i in range(share)
    ]


def choose_images(sets: list[QualitySet]) -> list[tuple[str, str, Case]]:
    """(set, method with the reference, case) of the images to draw.

    Photographs of the categories are shown whole with what was retrieved, the others as halves. None of
    Sceaux: those photographs have no licence to be shown.
    """
    groups: dict[str, list[tuple[str, str, Case]]] = {}
    for one in sets:
        method = "retrieved" if one.key == "categories" else one.reference
        for case in one.cases:
            is_shown_whole = one.key == "halves" and case.origin == "categories"
            if method is not None and one.key != "sceaux" and not is_shown_whole:
                groups.setdefault(case.origin, []).append((one.key, method, case))
    return spread(list(groups.values()), IMAGES)


def draw_sheet(
    sets: list[QualitySet],
    reports: dict[str, dict[str, dict[str, Any]]],
    references: dict[tuple[str, str], dict[str, Path]],
    lq_folder: Path,
    path: Path,
) -> None:
    """Draw 24 images, a centre crop of 192 pixels of each, as a JPEG of at most 1.5 MB.

    Args:
        sets: the sets.
        reports: {set: {method: report of `evaluate_folders`}}.
        references: {(set, method): {name: file}}.
        lq_folder: folder with `SET/lq/NAME.png`.
        path: the JPEG.
    """
    rows = []
    for key, method, case in choose_images(sets):
        gt_file = reports[key]["bicubic"]["files"][case.name]["gt"]
        cells = [PanelCell("LR", _centre(read_image(lq_folder / key / "lq" / f"{case.name}.png"), SCALE))]
        for shown in ("bicubic", "without", method):
            if shown in reports[key]:
                report = reports[key][shown]
                caption = f"{report['per_image'][case.name]['psnr']:.2f} dB"
                image = read_image(report["files"][case.name]["sr"])
                cells.append(PanelCell("with" if shown == method else shown, _centre(image), caption))
        if (key, method) in references:
            cells.append(PanelCell("reference", read_image(references[key, method][case.name]), method))
        cells.append(PanelCell("GT", _centre(read_image(gt_file)), f"{case.origin}"))
        rows.append(cells)
    with tempfile.TemporaryDirectory() as folder:
        draw_panel(rows, Path(folder) / "sheet.png", cell_size=CELL)
        with Image.open(Path(folder) / "sheet.png") as sheet, atomic_path(path) as temporary:
            for quality in _QUALITIES:
                sheet.save(temporary, format="JPEG", quality=quality, optimize=True)
                if temporary.stat().st_size <= MAX_BYTES:
                    break


def _centre(image: Tensor, shrinking: int = 1) -> Tensor:
    """The same square of an image and of its LR, whose sides are `shrinking` times shorter."""
    height, width = (side * shrinking // SCALE for side in image.shape[-2:])  # in LR pixels
    side = min(height, width, CELL // SCALE)
    top, left = (height - side) // 2, (width - side) // 2
    factor = SCALE // shrinking
    return image[:, factor * top : factor * (top + side), factor * left : factor * (left + side)]
