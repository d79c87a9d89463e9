"""`python -m rasr.tools preview`: the command as a user types it."""

import pytest
import torch
from PIL import Image

from rasr.image_io import read_image, write_png
from rasr.tools.preview import COLUMNS, GAP, MIN_SIDE, TEXT_HEIGHT
from tests.helpers import run_tool

SIDE = 192  # a multiple of 64, shown pixel by pixel


@pytest.fixture
def preview(tmp_path):
    def run(*arguments):
        return run_tool("preview", "data.train=train.csv", f"gt_size={SIDE}", *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def manifest(tmp_path):
    """Three flat gray images, each with one reference of another gray."""
    lines = ["image,prompt,references"]
    for n in range(3):
        write_png(torch.full((3, SIDE, SIDE), 0.2 + 0.1 * n), tmp_path / f"{n}.png")
        write_png(torch.full((3, SIDE, SIDE), 0.9 - 0.1 * n), tmp_path / f"ref{n}.png")
        lines.append(f"{n}.png,a gray wall,ref{n}.png")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "train.csv"


def cells(path, rows, columns=3):
    """The pictures of a sheet: (rows, columns, 3, SIDE, SIDE)."""
    sheet = read_image(path)
    assert sheet.shape[1:] == (
        TEXT_HEIGHT + rows * (SIDE + TEXT_HEIGHT + GAP),
        GAP + columns * (SIDE + GAP),
    )
    tops = [TEXT_HEIGHT + row * (SIDE + TEXT_HEIGHT + GAP) for row in range(rows)]
    lefts = [GAP + column * (SIDE + GAP) for column in range(columns)]
    return torch.stack([torch.stack([sheet[:, y : y + SIDE, x : x + SIDE] for x in lefts]) for y in tops])


def test_the_sheet_shows_what_training_sees(preview, manifest, tmp_path):
    done = preview("output=sheets/a.png", "rows=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 samples, sheets/a.png"
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"sheets"}
    shown = cells(tmp_path / "sheets" / "a.png", 2)
    for gt, lq_up, ref in shown:
        n = round((gt.mean().item() - 0.2) * 10)
        assert torch.allclose(gt, torch.full_like(gt, 0.2 + 0.1 * n), atol=1 / 255)
        assert torch.allclose(ref, torch.full_like(ref, 0.9 - 0.1 * n), atol=1 / 255)
        assert lq_up.std() > 0.001 and abs(lq_up.mean() - gt.mean()) < 0.1

    preview("output=again.png", "rows=2")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheets" / "a.png").read_bytes()
    preview("output=clean.png", "rows=2", "degradation=bicubic")
    clean = cells(tmp_path / "clean.png", 2)
    assert torch.equal(clean[:, 0], shown[:, 0]) and not torch.equal(clean[:, 1], shown[:, 1])
    preview("output=other.png", "rows=3", "seed=1")
    assert cells(tmp_path / "other.png", 3).shape[0] == 3


def test_without_references_there_are_two_columns_and_small_crops_are_enlarged(preview, manifest, tmp_path):
    manifest.write_text("image\n0.png\n")
    assert preview("output=a.png").returncode == 0
    assert cells(tmp_path / "a.png", 1, columns=2).shape[1] == 2
    assert preview("output=b.png", "gt_size=64").returncode == 0
    assert Image.open(tmp_path / "b.png").size == Image.open(tmp_path / "a.png").size
    assert 64 * (MIN_SIDE // 64) == SIDE and len(COLUMNS) == 3


def test_a_folder_may_be_called_by_a_number(preview, manifest, tmp_path):
    write_png(torch.rand(3, SIDE, SIDE), tmp_path / "2024" / "a.png")
    for train in ("2024", "[{path: 2024}]"):
        done = preview(f"data.train={train}", "output=a.png")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows=0"], "rows=0 is not a whole number of at least 1"),
        (["rows=many"], "rows=many is not a whole number"),
        (["gt_size=66"], "gt_size=66 is not a multiple of scale=4"),
        (["scale=0"], "scale=0 is not a whole number of at least 1"),
        (["gt_size=-64"], "gt_size=-64 is not a whole number of at least 1"),
        (["gt_size=abc"], "gt_size=abc is not a whole number"),
        (["output=s.jpg"], "output=s.jpg is no PNG; give a name that ends in .png"),
        (["output=5"], "output=5 is no PNG"),
        (["output=train.csv/s.png"], "train.csv cannot be made a folder"),
        (["data.batch_size=0"], "data.batch_size=0 is not a whole number of at least 1"),
        (["data.num_workers=-1"], "data.num_workers=-1 is not a whole number of at least 0"),
        (["data.train=none.csv"], "none.csv"),
        (["degradation.preset=osedif"], "preset 'osedif' is unknown"),
    ],
)
def test_mistakes_are_one_line(preview, manifest, arguments, message):
    done = preview(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert manifest.is_file() and {path.name for path in manifest.parent.iterdir() if path.is_dir()} == set()
