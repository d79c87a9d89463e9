import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rasr.data import RASRDataModule, RealESRGANDegradation, Row, sample_seed, write_manifest
from rasr.errors import RasrError
from rasr.image_io import write_png


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
    root = OmegaConf.create({"gt_size": 16, "seed": 5, "data": cfg})
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
