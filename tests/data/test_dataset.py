import pytest
import torch
from PIL import Image

from rasr.data import (
    ReferenceDataset,
    ResumableDataLoader,
    ResumableDistributedSampler,
    Row,
    write_manifest,
)
from rasr.data.file_check import find_fault
from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.seeding import sample_seed

SIZE = 24


def coordinates(height, width, blue):
    """An image whose pixels say where they are: red is x, green is y (in 1/255), blue which image it is."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.full_like(x, blue)]).float() / 255


def place(crop):
    """The left, top and mark of a crop of `coordinates`."""
    return tuple(round(value * 255) for value in crop[:, 0, 0].tolist())


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for index in range(4):
        write_png(coordinates(40, 60, index), tmp_path / f"train/{index}.png")
        rows.append(Row(f"train/{index}.png", "train", "any", f"photo {index}", ("db/10.png", "db/11.png")))
    for blue in (10, 11):
        write_png(coordinates(50, 50, blue), tmp_path / f"db/{blue}.png")
    write_manifest(tmp_path / "manifest.csv", rows)
    return tmp_path / "manifest.csv"


def build(source, **settings):
    return ReferenceDataset(source, **{"split": "train", "gt_size": SIZE, "seed": 0, **settings})


def test_a_sample_holds_what_the_trainer_needs(manifest):
    sample = build(manifest)[0, 2]
    assert set(sample) == {"gt", "ref", "prompt", "sample_id", "seed", "skipped"}
    assert sample["gt"].shape == sample["ref"].shape == (3, SIZE, SIZE)
    assert sample["gt"].dtype == torch.float32 and sample["gt"].is_contiguous()
    assert (sample["prompt"], sample["sample_id"]) == ("photo 2", "train/2.png")
    assert sample["seed"] == sample_seed(0, 0, "train/2.png")
    assert place(sample["gt"])[2] == 2 and place(sample["ref"])[2] in (10, 11)


def test_batches_stack(manifest):
    loader = torch.utils.data.DataLoader(build(manifest), batch_size=4)
    (batch,) = loader
    assert batch["gt"].shape == batch["ref"].shape == (4, 3, SIZE, SIZE)
    assert batch["seed"].dtype == torch.int64 and batch["seed"].shape == (4,)
    assert batch["sample_id"] == [f"train/{index}.png" for index in range(4)]


def test_samples_repeat_by_seed_and_epoch_alone(manifest):
    one, same, other = build(manifest), build(manifest), build(manifest, seed=1)
    torch.manual_seed(99)
    for index in range(4):
        assert torch.equal(one[3, index]["gt"], same[3, index]["gt"])
        assert torch.equal(one[3, index]["ref"], same[3, index]["ref"])
    assert {one[3, i]["seed"] for i in range(4)}.isdisjoint({other[3, i]["seed"] for i in range(4)})
    assert any(not torch.equal(one[3, i]["gt"], other[3, i]["gt"]) for i in range(4))
    assert len({one[epoch, 0]["seed"] for epoch in range(50)}) == 50


def test_crops_move_over_the_epochs_and_independently(manifest):
    dataset = build(manifest, hflip=False)
    samples = [dataset[epoch, 0] for epoch in range(300)]
    gt, ref = [place(s["gt"]) for s in samples], [place(s["ref"]) for s in samples]
    assert {left for left, *_ in gt} == set(range(60 - SIZE + 1))
    assert {top for _, top, _ in gt} == set(range(40 - SIZE + 1))
    assert {left for left, *_ in ref} == {top for _, top, _ in ref} == set(range(50 - SIZE + 1))
    assert {blue for *_, blue in ref} == {10, 11}
    correlation = torch.corrcoef(torch.tensor([[g[0], r[0]] for g, r in zip(gt, ref, strict=True)]).T.float())
    assert abs(correlation[0, 1]) < 0.2


def test_random_crop_off_takes_the_centre(manifest):
    dataset = build(manifest, hflip=False, random_crop=False)
    for epoch in range(5):
        assert place(dataset[epoch, 0]["gt"])[:2] == ((60 - SIZE) // 2, (40 - SIZE) // 2)
        assert place(dataset[epoch, 0]["ref"])[:2] == ((50 - SIZE) // 2, (50 - SIZE) // 2)


def test_hflip_mirrors_image_and_reference_together(manifest):
    def is_mirrored(crop):
        return bool(crop[0, 0, 0] > crop[0, 0, -1])

    on, off = build(manifest), build(manifest, hflip=False)
    mirrored = [is_mirrored(on[epoch, 0]["gt"]) for epoch in range(100)]
    assert 30 < sum(mirrored) < 70
    assert mirrored == [is_mirrored(on[epoch, 0]["ref"]) for epoch in range(100)]
    assert not any(is_mirrored(off[epoch, 0]["gt"]) for epoch in range(20))


def test_fixed_samples_are_the_same_in_every_epoch(manifest):
    dataset = build(manifest, is_fixed=True)
    for epoch in (1, 7):
        assert dataset[epoch, 1]["seed"] == dataset[0, 1]["seed"]
        assert torch.equal(dataset[epoch, 1]["gt"], dataset[0, 1]["gt"])
        assert torch.equal(dataset[epoch, 1]["ref"], dataset[0, 1]["ref"])


def test_set_epoch_serves_plain_indexes(manifest):
    dataset = build(manifest)
    dataset.set_epoch(4)
    assert dataset[2]["seed"] == dataset[4, 2]["seed"]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_reaches_persistent_workers(manifest, workers):
    dataset = build(manifest)
    sampler = ResumableDistributedSampler(4, shuffle=True, seed=0)
    loader = ResumableDataLoader(
        dataset, batch_size=2, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    for epoch in (0, 1, 5):
        sampler.set_epoch(epoch)
        seeds = {}
        for batch in loader:
            seeds.update(zip(batch["sample_id"], batch["seed"].tolist(), strict=True))
        assert seeds == {f"train/{i}.png": sample_seed(0, epoch, f"train/{i}.png") for i in range(4)}


def test_without_references_there_is_no_ref(manifest):
    rows = [Row(f"train/{index}.png", "train") for index in range(4)]
    write_manifest(manifest, rows)
    assert "ref" not in build(manifest)[0, 0]


def test_a_folder_works(manifest):
    dataset = build(manifest.parent / "train")
    assert len(dataset) == 4 and dataset[0, 3]["sample_id"] == "3.png"


def test_bad_files_are_all_named_before_training(manifest):
    folder = manifest.parent
    (folder / "train/1.png").write_bytes(b"not an image")
    write_png(torch.zeros(3, 30, SIZE - 1), folder / "train/2.png")
    (folder / "db/11.png").unlink()
    with pytest.raises(RasrError) as caught:
        build(manifest)
    message = str(caught.value)
    assert f"{manifest}: 3 of 6 image files cannot be used" in message
    assert f"line 3, {folder}/train/1.png: not an image" in message
    assert f"line 4, {folder}/train/2.png: 23x30 is smaller than gt_size 24" in message
    assert f"line 2, reference {folder}/db/11.png: no such file" in message
    assert "\n" not in message


def test_a_long_list_of_bad_files_is_cut_short(manifest):
    write_manifest(manifest, [Row(f"gone/{index}.png", "train") for index in range(30)])
    with pytest.raises(RasrError, match=r"30 of 30 image files .*gone/4\.png: no such file; and 25 more$"):
        build(manifest)


def test_a_file_cut_short_is_found_before_training(manifest):
    path = manifest.parent / "train/1.png"
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(RasrError, match=r"1 of 6 image files.*line 3, \S*train/1\.png: cannot be decoded"):
        build(manifest)


@pytest.mark.parametrize(
    ("extension", "is_found"), [("jpg", True), ("png", True), ("webp", True), ("bmp", False)]
)
def test_the_quick_look_at_each_format(tmp_path, extension, is_found):
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / f"a.{extension}")
    assert find_fault(tmp_path / f"a.{extension}", 64) is None
    data = (tmp_path / f"a.{extension}").read_bytes()
    (tmp_path / f"b.{extension}").write_bytes(data + bytes(20))  # what some cameras leave
    assert find_fault(tmp_path / f"b.{extension}", 64) is None
    (tmp_path / f"c.{extension}").write_bytes(data[: len(data) * 2 // 3])
    assert (find_fault(tmp_path / f"c.{extension}", 64) is not None) == is_found


def damage(path):
    """Overwrites the middle of a file, which a look at both ends does not show."""
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(len(data) - 80) + data[-20:])


def test_a_damaged_image_is_replaced_by_the_next_with_a_record(manifest):
    dataset, sound = build(manifest), build(manifest)
    expected = [sound[3, index] for index in range(4)]
    damage(manifest.parent / "train/1.png")
    samples = [dataset[3, index] for index in range(4)]
    for index in (0, 2, 3):
        assert torch.equal(samples[index]["gt"], expected[index]["gt"]) and samples[index]["skipped"] == ""
    stand_in = samples[1]
    assert stand_in["sample_id"] == "train/2.png"
    assert f"{manifest}: line 3, {manifest.parent}/train/1.png: cannot be decoded" in stand_in["skipped"]
    assert stand_in["seed"] != samples[2]["seed"] and not torch.equal(stand_in["gt"], samples[2]["gt"])
    again = build(manifest)[3, 1]  # the same after a resume, and another crop in another epoch
    assert again["seed"] == stand_in["seed"] and torch.equal(again["gt"], stand_in["gt"])
    assert dataset[4, 1]["seed"] != stand_in["seed"]


def test_a_damaged_or_lost_reference_names_row_and_path(manifest):
    dataset = build(manifest)
    damage(manifest.parent / "db/10.png")
    (manifest.parent / "db/11.png").unlink()
    with pytest.raises(RasrError, match=r"4 samples in a row cannot be read; check the storage"):
        dataset[0, 0]
    rows = [Row(f"train/{i}.png", "train", references=(f"train/{(i + 1) % 4}.png",)) for i in range(4)]
    write_manifest(manifest, rows)
    dataset = build(manifest)
    (manifest.parent / "train/2.png").unlink()
    assert f"line 3, reference {manifest.parent}/train/2.png: no such file" in dataset[0, 1]["skipped"]


def test_the_last_sample_is_replaced_by_the_first(manifest):
    dataset = build(manifest)
    damage(manifest.parent / "train/3.png")
    assert dataset[0, 3]["sample_id"] == "train/0.png"


def overlap(first, second):
    sides = [max(0, SIZE - abs(a - b)) for a, b in zip(first[:2], second[:2], strict=True)]
    return sides[0] * sides[1] / SIZE**2


@pytest.mark.parametrize("allowed", [0.25, 0.5, 1])
def test_two_crops_of_one_image_overlap_as_little_as_asked(manifest, allowed):
    write_manifest(manifest, [Row(f"train/{index}.png", "train") for index in range(4)])
    dataset = build(manifest, two_crops=True, max_overlap=allowed, hflip=False)
    assert dataset.has_references
    samples = [dataset[epoch, 2] for epoch in range(200)]
    places = [(place(sample["gt"]), place(sample["ref"])) for sample in samples]
    assert {mark for pair in places for *_, mark in pair} == {2}
    overlaps = [overlap(*pair) for pair in places]
    # In 40x60 the farthest crop from the centre still shares 16x6 of 24x24.
    assert sum(value > allowed for value in overlaps) <= (0 if allowed > 0.5 else 12)
    assert max(overlaps) > 0.8 * allowed and min(overlaps) == 0


def test_two_crops_at_validation_are_not_the_same_crop(manifest):
    dataset = build(manifest, two_crops=True, random_crop=False, hflip=False, is_fixed=True)
    sample = dataset[0, 0]
    assert place(sample["gt"])[:2] == ((60 - SIZE) // 2, (40 - SIZE) // 2)
    assert overlap(place(sample["gt"]), place(sample["ref"])) <= 0.5
    assert torch.equal(dataset[5, 0]["ref"], sample["ref"])


def test_two_crops_mirror_together(manifest):
    dataset = build(manifest, two_crops=True)
    for epoch in range(20):
        sample = dataset[epoch, 0]
        assert (sample["gt"][0, 0, 0] > sample["gt"][0, 0, -1]) == (
            sample["ref"][0, 0, 0] > sample["ref"][0, 0, -1]
        )


def test_two_crops_need_neither_references_nor_their_files(manifest):
    (manifest.parent / "db/10.png").unlink()
    assert build(manifest, two_crops=True)[0, 0]["ref"].shape == (3, SIZE, SIZE)


def test_rows_that_cannot_be_batched_or_told_apart_are_refused(manifest):
    rows = [Row("train/0.png", "train", references=("db/10.png",)), Row("train/1.png", "train")]
    write_manifest(manifest, rows)
    with pytest.raises(RasrError, match=r"1 of 2 rows of split 'train' have no references.*train/1\.png"):
        build(manifest)
    write_manifest(manifest, [Row("train/0.png", "train"), Row("train/0.png", "train")])
    with pytest.raises(RasrError, match=r"lists train/0\.png twice"):
        build(manifest)
    write_manifest(manifest, [Row("train/0.png", "train", references=("db/10.png", "train/0.png"))])
    with pytest.raises(RasrError, match=r"line 2: train/0\.png is its own reference.*two_crops"):
        build(manifest)
    write_manifest(manifest, [Row("train/0.png", "train"), Row("", "train", lq="train/1.png")])
    with pytest.raises(RasrError, match=r"1 of 2 rows .* have no ground truth, the first is train/1\.png"):
        build(manifest)
    with pytest.raises(RasrError, match=r"max_overlap=1\.5"):
        build(manifest.parent / "train", max_overlap=1.5)
