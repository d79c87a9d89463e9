"""Shards as litdata writes them: the same samples as from files, and exact resume."""

import sys

import pytest
import torch
from PIL import Image

from rasr.data import ReferenceDataset, ResumableDataLoader, ResumableDistributedSampler, Row, write_manifest
from rasr.data.shards import ShardDataset, is_shards
from rasr.errors import RasrError
from rasr.image_io import write_png
from tests.helpers import run_logged

litdata = pytest.importorskip("litdata")

COUNT = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of noise, and shards of it made by the command: several chunks, two references each."""
    folder = tmp_path_factory.mktemp("shards")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(COUNT):
        write_png(torch.rand(3, 24, 32, generator=generator), folder / f"{index}.png")
        references = tuple(f"{(index + step) % COUNT}.png" for step in (1, 2))
        rows.append(Row(f"{index}.png", "train", "any", f"photo {index}", references))
    Image.open(folder / "3.png").save(folder / "3.jpg", quality=95)
    rows[3] = Row("3.jpg", "train", "any", "photo 3", ("4.png", "5.png"))
    write_manifest(folder / "manifest.csv", [*rows, Row("0.png", "test")])
    done = run_logged(
        *("data/make_shards.py", "--source", folder / "manifest.csv", "--output", folder / "shards"),
        *("--min-side", "24", "--shard-megabytes", "0.02"),
    )
    assert done.returncode == 0, done.stderr
    assert f"{COUNT} samples" in done.stderr
    assert len(list((folder / "shards").glob("*.bin"))) > 3
    return folder


SETTINGS = {"gt_size": 16, "seed": 3}


def from_files(folder, **settings):
    return ReferenceDataset(folder / "manifest.csv", split="train", **{**SETTINGS, **settings})


def from_shards(folder, **settings):
    return ShardDataset(folder / "shards", **{**SETTINGS, **settings})


@pytest.mark.parametrize("settings", [{}, {"two_crops": True}, {"is_fixed": True, "random_crop": False}])
def test_shards_give_the_samples_of_the_files(folder, settings):
    assert is_shards(folder / "shards") and is_shards("s3://bucket/set") and not is_shards(folder)
    files, shards = from_files(folder, **settings), from_shards(folder, **settings)
    assert len(shards) == COUNT and shards.has_references
    for key in [(0, 0), (2, 3), (1, COUNT - 1)]:
        ours, theirs = shards[key], files[key]
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else ours[name] == value


def read(dataset, *, rank=0, batches=None, state=None, workers=0):
    sampler = ResumableDistributedSampler(len(dataset), world_size=2, rank=rank, shuffle=True, seed=1)
    loader = ResumableDataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers)
    if state is not None:
        loader.load_state_dict(state)
    found = []
    for batch in loader:
        found.append((batch["sample_id"], batch["seed"].tolist()))
        if len(found) == batches:
            break
    return found, loader.state_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_over_shards_resumes_to_the_batch_on_every_rank(folder, workers):
    names = set()
    for rank in (0, 1):
        straight, _ = read(from_files(folder), rank=rank)
        head, state = read(from_shards(folder), rank=rank, batches=1, workers=workers)
        tail, _ = read(from_shards(folder), rank=rank, state=state, workers=workers)
        assert head + tail == straight
        names |= {name for batch, _ in straight for name in batch}
    assert len(names) == COUNT


def test_mistakes_are_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(RasrError, match="cannot open the shards"):
        ShardDataset(tmp_path, **SETTINGS)
    with pytest.raises(
        RasrError, match=r"10 samples in a row .*sample 0, 0\.png|0\.png: 32x24 is smaller than"
    ):
        from_shards(folder, gt_size=25)[0]
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(RasrError, match=r"pip install -e '\.\[shards\]'"):
        from_shards(folder)
