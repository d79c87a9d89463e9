import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rasr.data import Row, write_manifest
from rasr.data.datamodule import RASRDataModule
from rasr.degradation import RealESRGANDegradation
from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.seeding import sample_seed
from tests.helpers import REPOSITORY


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for split, count in (("train", 6), ("other", 3), ("test", 3)):
        for index in range(count):
            image = torch.rand(3, 20, 28)
            write_png(image, tmp_path / f"{split}/{index}.png")
            rows.append(Row(f"{split}/{index}.png", split))
    write_manifest(tmp_path / "manifest.csv", rows)
    return tmp_path / "manifest.csv"


@pytest.fixture
def settings(manifest, repository):
    """The shipped data=folder, with root values in place and the files of this test."""
    cfg = OmegaConf.load(repository / "conf/data/folder.yaml")
    cfg.update(train=str(manifest), val=str(manifest), num_workers=0, batch_size=2)
    paths = {"output_dir": str(manifest.parent / "run")}
    root = OmegaConf.create({"gt_size": 16, "seed": 5, "paths": paths, "data": cfg})
    return lambda **changes: OmegaConf.merge(root, {"data": changes}).data


def build(cfg) -> RASRDataModule:
    module = instantiate(cfg)
    module.setup("fit")
    return module


def samples(loader):
    """{sample id: (seed, gt)} of one pass."""
    return {
        name: (seed, gt)
        for batch in loader
        for name, seed, gt in zip(batch["sample_id"], batch["seed"].tolist(), batch["gt"], strict=True)
    }


def test_the_shipped_configuration_gives_loaders(settings):
    module = build(settings())
    train, val = module.train_dataloader(), module.val_dataloader()
    assert set(samples(train)) == {f"train/{index}.png" for index in range(6)}
    assert list(samples(val)) == [f"test/{index}.png" for index in range(3)]
    batch = next(iter(train))
    assert batch["gt"].shape == (2, 3, 16, 16)
    assert batch["seed"].tolist() == [sample_seed(5, 0, name) for name in batch["sample_id"]]


def test_every_key_changes_what_is_loaded(settings):
    def first(**changes):
        module = build(settings(**changes))
        train, val = module.train_dataloader(), module.val_dataloader()
        return samples(train), samples(val) if val else None, train

    base_train, base_val, base_loader = first()
    assert len(first(train_split="other")[0]) == 3
    assert set(first(val_split="other")[1]) != set(base_val)
    assert first(val=None)[1] is None
    assert first(gt_size=8)[0]["train/0.png"][1].shape == (3, 8, 8)
    assert len(first(batch_size=3)[2]) == 2 != len(base_loader)
    assert first(num_workers=1)[2].num_workers == 1
    reseeded = first(seed=6)[0]
    assert list(reseeded) != list(base_train) and reseeded["train/0.png"][0] != base_train["train/0.png"][0]
    for change in ({"random_crop": False}, {"hflip": False}):
        changed = first(**change)[0]
        assert any(not torch.equal(changed[name][1], base_train[name][1]) for name in changed)
        assert all(changed[name][0] == base_train[name][0] for name in changed)


def test_two_crops_and_their_overlap_are_keys(settings):
    def refs(**changes):
        (batch,) = build(settings(batch_size=6, two_crops=True, **changes)).train_dataloader()
        return batch["ref"]

    assert refs().shape == (6, 3, 16, 16)
    assert torch.equal(refs(), refs()) and not torch.equal(refs(), refs(max_overlap=1.0))
    assert "ref" not in next(iter(build(settings()).train_dataloader()))
    assert build(settings(two_crops=True)).val_set.has_references


def test_neighbours_are_read(settings, manifest):
    images = [
        f"{split}/{index}.png" for split, count in (("train", 6), ("test", 3)) for index in range(count)
    ]
    columns = {"image": images, "rank": [0] * 9, "reference": ["other/0.png"] * 9, "score": [1.0] * 9}
    pq.write_table(pa.table(columns), manifest.parent / "n.parquet")
    module = build(settings(neighbours=str(manifest.parent / "n.parquet")))
    batch = next(iter(module.train_dataloader()))
    assert batch["ref"].shape == (2, 3, 16, 16) and module.val_set.has_references


def test_neighbours_that_would_not_be_read_are_refused(settings, manifest):
    with pytest.raises(RasrError, match=r"neighbours=gone\.parquet and two_crops=true exclude each other"):
        build(settings(neighbours="gone.parquet", two_crops=True))
    (manifest.parent / "shards").mkdir()
    (manifest.parent / "shards/index.json").write_text("{}")
    with pytest.raises(RasrError, match=r"neighbours=gone\.parquet does not go with the shards .*/shards"):
        build(settings(neighbours="gone.parquet", train=str(manifest.parent / "shards")))
    mixed = [{"path": str(manifest), "two_crops": True, "neighbours": None}]
    with pytest.raises(RasrError, match="no such neighbours file"):  # of the validation set alone
        build(settings(neighbours="gone.parquet", train=mixed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0 is not a whole number of at least 1"),
        ({"batch_size": 1.5}, "data.batch_size=1.5 is not a whole number"),
        ({"num_workers": -1}, "data.num_workers=-1 is not a whole number of at least 0"),
    ],
)
def test_impossible_loaders_are_refused(settings, changes, message):
    cfg = settings(**changes)
    with pytest.raises(InstantiationException) as caught:
        instantiate(cfg)
    assert isinstance(caught.value.__cause__, RasrError) and message in str(caught.value.__cause__)


def test_several_sets_mix_by_weight(settings, manifest):
    train = [
        {"path": str(manifest), "weight": 1},
        {"path": str(manifest.parent / "other"), "weight": 2, "two_crops": False},
    ]
    module = build(settings(train=train, val=train[:1] * 2))
    epochs = []
    loader = module.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        epochs.append(
            [
                (name, seed)
                for batch in loader
                for name, seed in zip(batch["sample_id"], batch["seed"].tolist(), strict=True)
            ]
        )
    assert [sum("/" in name for name, _ in epoch) for epoch in epochs] == [6, 6]
    assert len(epochs[0]) == 18
    assert len(set(epochs[0] + epochs[1])) == 36  # whatever comes again is degraded anew
    assert len(module.val_dataloader()) == 3


def test_training_needs_images(settings):
    module = instantiate(settings(train=None))
    with pytest.raises(RasrError, match=r"data\.train is null; give training images"):
        module.setup("fit")


class Reader(pl.LightningModule):
    """Trains nothing and keeps the samples' names."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.read = []

    def training_step(self, batch, batch_idx):
        self.read.append(list(batch["sample_id"]))
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(cfg, workers):
    module = Reader()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    data = instantiate(cfg)
    data.setup("fit")
    (data.train_set.rows[1].image_path).write_bytes(b"gone bad since the check")
    trainer.fit(module, data)
    return module.read


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_past_a_file_that_went_bad_and_leaves_a_record(settings, manifest, workers, caplog):
    cfg = settings(num_workers=workers, val=None)
    read = fit(cfg, workers)
    names = [name for batch in read for name in batch]
    assert len(names) == 12 and "train/1.png" not in names and names.count("train/2.png") == 4
    with open(cfg.skipped, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["epoch", "replaced_by", "skipped"]
    assert [line[:2] for line in lines] == [["0", "train/2.png"], ["1", "train/2.png"]]
    assert all(f"line 3, {manifest.parent}/train/1.png: not an image" in line[2] for line in lines)
    assert sum("sample skipped" in message for message in caplog.messages) == 1


def test_the_record_can_be_left_out(settings, manifest):
    assert len(fit(settings(skipped=None, val=None), 0)) == 6
    assert not (manifest.parent / "run").exists()


@pytest.mark.parametrize("option", sorted(path.stem for path in (REPOSITORY / "conf/data").glob("*.yaml")))
def test_every_shipped_data_set_builds(compose, option, tmp_path):
    overrides = [
        f"data={option}",
        f"paths.data_dir={tmp_path}",
        "paths.output_dir=here",
        *(["data.train=x.csv"] if option in ("folder", "two_view") else []),
    ]
    cfg = compose(overrides)
    module = instantiate(cfg.data)
    assert isinstance(module, RASRDataModule)
    with pytest.raises(RasrError, match="no such manifest or folder"):
        module.setup("fit")


def test_validation_is_the_same_in_every_epoch_and_training_is_not(settings):
    module = build(settings())
    for loader, is_fixed in ((module.val_dataloader(), True), (module.train_dataloader(), False)):
        before = samples(loader)
        loader.sampler.set_epoch(3)
        after = samples(loader)
        assert before.keys() == after.keys()
        assert all((before[name][0] == after[name][0]) == is_fixed for name in before)
        assert (list(before) == list(after)) == is_fixed


def test_the_ranks_of_a_trainer_share_the_data(settings):
    class TwoRanks:
        world_size = 2

        def __init__(self, rank):
            self.global_rank = rank

    shares = []
    for rank in (0, 1):
        module = build(settings())
        module.trainer = TwoRanks(rank)
        shares.append(set(samples(module.train_dataloader())))
    assert len(shares[0]) == len(shares[1]) == 3 and shares[0].isdisjoint(shares[1])


def test_a_bad_file_stops_the_setup(settings, manifest):
    (manifest.parent / "test/1.png").write_bytes(b"")
    with pytest.raises(RasrError, match=r"1 of 3 image files cannot be used.*test/1\.png"):
        build(settings())


@pytest.mark.parametrize("preset", ["osediff", "realesrgan", "bicubic"])
def test_the_shipped_degradations_obey_their_keys(repository, preset):
    cfg = OmegaConf.load(repository / f"conf/degradation/{preset}.yaml")
    for scale in (2, 4):
        degradation = instantiate(OmegaConf.create({"scale": scale, "degradation": cfg}).degradation)
        assert isinstance(degradation, RealESRGANDegradation) and degradation.preset == preset
        assert degradation(torch.rand(1, 3, 32, 32)).shape == (1, 3, 32 // scale, 32 // scale)
