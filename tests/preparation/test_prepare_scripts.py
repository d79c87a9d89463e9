"""The prepare.py of each data set, on small sets of the published layout."""

import csv
import hashlib

import pytest
import torch
from PIL import Image

from rasr.data import read_rows
from rasr.errors import RasrError
from rasr.image_io import read_image, write_png
from rasr.preparation.jobs import RECORD, Job, _write_record, map_jobs, remove_stale
from rasr.preparation.sets import crop_image
from tests.helpers import run_logged

PREPARE = ["rasr_flickr30", "lsdir", "cufed5", "wr_sr", "realphoto60", "rasr_custom", "rasr_small"]


def make(folder, *names, size=(40, 60)):
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        write_png(torch.rand(3, *size, generator=generator), folder / name)


@pytest.fixture
def prepare():
    """Run the prepare.py of a set over a folder of originals; it writes to `out` beside them."""

    def run(name, folder, *arguments):
        return run_logged(
            f"data/{name}/prepare.py",
            *("--input", folder, "--output", folder.parent / "out", "--workers", "0", *arguments),
        )

    return run


def problems(folder):
    with (folder.parent / "out/problems.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def originals(tmp_path):
    """An empty folder; whatever a test puts there must come out unchanged."""
    folder = tmp_path / "originals"
    folder.mkdir()
    return folder


@pytest.fixture
def flickr(originals):
    for category in ("owl", "fox"):
        for split, count in (("train", 2), ("test", 1), ("reference", 3)):
            make(originals, *(f"{category}/{split}/{index}.png" for index in range(count)))
    return originals


def test_rasr_flickr30_is_cut_listed_and_counted(prepare, flickr):
    make(flickr, "owl/train/small.png", size=(31, 60))
    (flickr / "fox/reference/1.png").write_bytes(b"\x89PNG damaged")
    before = snapshot(flickr)
    done = prepare("rasr_flickr30", flickr, "--crop", "32")
    assert done.returncode == 0, done.stderr
    assert snapshot(flickr) == before
    output = flickr.parent / "out"
    rows = read_rows(output / "manifest.csv")
    assert [(row.split, row.category) for row in rows] == [
        *[("train", "fox")] * 2, ("test", "fox"), *[("train", "owl")] * 2, ("test", "owl"),
    ]  # fmt: skip
    crop = read_image(rows[0].image_path)
    assert torch.equal(crop, read_image(flickr / "fox/train/0.png")[:, 4:36, 14:46])
    assert read_image(rows[2].image_path).shape == (3, 40, 60)  # test images stay whole
    assert {p.relative_to(output).as_posix() for p in (output / "reference").rglob("*.png")} == {
        f"reference/{name}.png.png" for name in ("fox/0", "fox/2", "owl/0", "owl/1", "owl/2")
    }
    kinds = [kind for kind, _ in problems(flickr)]
    assert kinds.count("unreadable") == kinds.count("smaller than 32 pixels") == 1
    assert "28 categories are missing: 2 of 30 are there" in done.stderr
    assert "2 categories have fewer than 40 train images: fox (2); owl (3)" in done.stderr
    assert "5 reference images" in done.stderr and f"assign={output}/manifest.csv" in done.stderr


def test_a_second_run_reads_nothing_keeps_references_and_mends(prepare, flickr, monkeypatch):
    assert prepare("rasr_flickr30", flickr, "--crop", "32").returncode == 0
    output = flickr.parent / "out"
    manifest = output / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("train,fox,,,", "train,fox,,reference/fox/0.png.png,"))
    before = snapshot(output)
    read = []
    monkeypatch.setattr("rasr.preparation.sets.read_pixels", lambda path: read.append(path) or 1 / 0)
    assert prepare("rasr_flickr30", flickr, "--crop", "32").returncode == 0
    assert snapshot(output) == before and read == []
    assert read_rows(manifest)[0].references == ("reference/fox/0.png.png",)

    monkeypatch.undo()
    (output / "train/fox/0.png.png").unlink()
    make(flickr, "owl/train/0.png", size=(50, 50))  # a changed original
    (flickr / "owl/reference/2.png").unlink()  # and a removed one
    assert prepare("rasr_flickr30", flickr, "--crop", "32").returncode == 0
    after = snapshot(output)
    changed = {
        p.relative_to(output).as_posix()
        for p in before.keys() | after.keys()
        if before.get(p) != after.get(p)
    }
    assert {"train/owl/0.png.png", "train/fox/0.png.png", "reference/owl/2.png.png"} <= changed
    assert not (output / "reference/owl/2.png.png").exists() and (output / "train/fox/1.png.png").exists()
    assert after[output / "train/fox/0.png.png"][1] == before[output / "train/fox/0.png.png"][1]
    assert "train/fox/1.png.png" not in changed


def test_an_interrupted_run_goes_on(prepare, flickr, monkeypatch):
    done_before = []

    def stop_at_fifth(image, path):
        if len(done_before) == 4:
            raise KeyboardInterrupt
        done_before.append(path)
        write_png(image, path)

    monkeypatch.setattr("rasr.preparation.sets.write_png", stop_at_fifth)
    done = prepare("rasr_flickr30", flickr, "--crop", "32")
    assert done.returncode == 130 and done.stderr.endswith("run the same command again to go on\n")
    stamps = {path: path.stat().st_mtime_ns for path in done_before}
    monkeypatch.undo()
    assert prepare("rasr_flickr30", flickr, "--crop", "32").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in done_before} == stamps
    assert len(read_rows(flickr.parent / "out/manifest.csv")) == 6


def test_several_processes_do_the_same(flickr, tmp_path):
    jobs = [Job(path, tmp_path / f"{n}.png", 32) for n, path in enumerate(sorted(flickr.rglob("*.png")))]
    results = map_jobs(crop_image, jobs, tmp_path / "r.json", workers=2, description="x")
    assert results == [{"width": 60, "height": 40}] * 12
    assert all(job.target.is_file() for job in jobs)


def test_lsdir_lists_in_place_or_cuts(prepare, originals):
    make(originals, "0001000/0000001.png", "0001000/0000002.png", size=(40, 90))
    make(originals, "0002000/0000003.png", size=(20, 90))
    done = prepare("lsdir", originals, "--min-side", "32")
    assert done.returncode == 0, done.stderr
    rows = read_rows(originals.parent / "out/manifest.csv", "train")
    assert [row.image for row in rows] == [f"../originals/0001000/000000{i}.png" for i in (1, 2)]
    assert (
        "84,988 images are missing: 3 of 84,991 are there" in done.stderr
        and "1 smaller than 32 pixels" in done.stderr
    )
    assert prepare("lsdir", originals, "--min-side", "32", "--crop", "48").returncode == 0
    row = read_rows(originals.parent / "out/manifest.csv", "train")[0]
    assert row.image == "train/0001000/0000001.png.png"
    assert torch.equal(read_image(row.image_path), read_image(originals / "0001000/0000001.png")[:, :, 21:69])


def test_cufed5_gives_references_by_falling_similarity(prepare, originals):
    names = [f"{scene}_{level}.png" for scene in ("000", "001") for level in range(6)]
    make(originals, *names, "002_0.png", "readme.png")
    (originals / "001_2.png").unlink()
    done = prepare("cufed5", originals)
    assert done.returncode == 0, done.stderr
    first, second = read_rows(originals.parent / "out/manifest.csv", "test")
    assert first.image.endswith("originals/000_0.png")
    assert [path[-9:] for path in first.references] == [f"000_{level}.png" for level in range(1, 6)]
    assert [path[-9:] for path in second.references] == [f"001_{level}.png" for level in (1, 3, 4, 5)]
    missing = [what for kind, what in problems(originals) if kind == "images of a scene are missing"]
    assert missing == ["001_2", *(f"002_{level}" for level in range(1, 6))]
    assert "123 scenes are missing: 3 of 126 are there" in done.stderr


def test_wr_sr_pairs_by_name(prepare, originals):
    make(originals, "input/001.png", "input/002.png", "ref/001_ref.png")
    done = prepare("wr_sr", originals)
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(originals.parent / "out/manifest.csv", "test")
    assert row.references[0].endswith("ref/001_ref.png")
    assert problems(originals) == [
        ("pairs are missing", "2 of 80 are there"), ("references are missing", "of 002.png"),
    ]  # fmt: skip


def test_realphoto60_has_no_ground_truth(prepare, originals):
    make(originals, "a.png", "b.png")
    (originals / "a.txt").write_text("a street")
    assert prepare("realphoto60", originals, "--photos", "2").returncode == 0
    rows = read_rows(originals.parent / "out/manifest.csv", "test")
    assert [(row.image, row.lq[-5:], row.prompt) for row in rows] == [
        ("", "a.png", "a street"),
        ("", "b.png", ""),
    ]
    assert not (originals.parent / "out/problems.csv").exists()


def test_rasr_small_keeps_the_last_two_of_a_category_for_testing(prepare, originals):
    make(originals, *(f"categories/pet_basset_hound/{index}.png" for index in range(4)), size=(192, 192))
    make(originals, "general/street.png", size=(192, 200))
    make(originals, "general/small.png", size=(191, 300))
    done = prepare("rasr_small", originals)
    assert done.returncode == 0, done.stderr
    rows = read_rows(originals.parent / "out/manifest.csv")
    assert [(row.image_path.name, row.split, row.prompt) for row in rows] == [
        ("street.png", "general", ""),
        ("0.png", "category", "a photo of a basset hound"),
        ("1.png", "category", "a photo of a basset hound"),
        ("2.png", "test", "a photo of a basset hound"),
        ("3.png", "test", "a photo of a basset hound"),
    ]
    assert "1 smaller than 192 pixels" in done.stderr
    for index in (1, 2):
        (originals / f"categories/pet_basset_hound/{index}.png").unlink()
    done = prepare("rasr_small", originals)
    assert done.returncode == 2 and "pet_basset_hound: 2 photographs; give at least 3" in done.stderr


@pytest.mark.parametrize("name", PREPARE)
def test_mistakes_are_one_line(prepare, originals, name):
    for arguments, message in (
        ((), str(originals)),  # empty
        (("--input", originals / "none"), "none: no such folder"),
        (("--output", originals / "inside"), "lies inside the originals"),
    ):
        done = prepare(name, originals, *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert message in done.stderr and done.stderr.count("\n") == 1
    assert list(originals.iterdir()) == []


@pytest.mark.parametrize("name", PREPARE)
@pytest.mark.parametrize("through_link", [False, True])
def test_originals_inside_the_output_are_refused(prepare, originals, name, through_link):
    make(originals, "train/fox/train/0.png", "train/fox/1.png", "train/000_0.png", "train/input/1.png")
    source = originals / "train"
    if through_link:
        source = originals.parent / "link"
        source.symlink_to(originals / "train")
    before = snapshot(originals)
    done = prepare(name, originals, "--input", source, "--output", originals)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"error: --input {source} lies inside --output {originals}; give another" in done.stderr
    assert snapshot(originals) == before


def test_only_what_an_earlier_run_wrote_is_removed(prepare, originals):
    make(originals, "a.png", "b.png")
    output = originals.parent / "out"
    make(output, "train/mine.png", "test/mine.png", "reference/mine.png", "mine.png")
    (output / "train/link.png").symlink_to(output / "mine.png")
    mine = snapshot(output)
    arguments = ("--min-side", "32", "--crop", "36")
    assert prepare("lsdir", originals, *arguments).returncode == 0
    assert (output / "train/b.png.png").is_file()
    (originals / "b.png").unlink()
    assert prepare("lsdir", originals, *arguments).returncode == 0
    assert (output / "train/a.png.png").is_file() and not (output / "train/b.png.png").exists()
    assert mine.items() <= snapshot(output).items()


def test_a_link_in_place_of_a_target_leaves_alone_what_it_names(prepare, originals):
    make(originals, "a.png", "b.png")
    output = originals.parent / "out"
    arguments = ("--min-side", "32", "--crop", "36")
    assert prepare("lsdir", originals, *arguments).returncode == 0
    make(output, "kept.png")
    (output / "train/b.png.png").unlink()
    (output / "train/b.png.png").symlink_to(output / "kept.png")
    (originals / "b.png").unlink()
    assert prepare("lsdir", originals, *arguments).returncode == 0
    assert (output / "kept.png").is_file()


def test_a_target_that_is_an_original_is_refused(originals, tmp_path):
    make(originals, "a.png", "b.png")
    (tmp_path / "out").symlink_to(originals)
    before = snapshot(originals)
    jobs = [Job(originals / "a.png", tmp_path / "new.png"), Job(originals / "b.png", tmp_path / "out/a.png")]
    with pytest.raises(RasrError, match=r"out/a\.png would be written over an original"):
        map_jobs(crop_image, jobs, tmp_path / "record", workers=0, description="x")
    assert snapshot(originals) == before and not (tmp_path / "new.png").exists()


def test_what_a_killed_run_wrote_is_known_to_the_next(originals, tmp_path, monkeypatch):
    make(originals, "a.png")
    output, target = tmp_path / "out", tmp_path / "out/test/a.png"
    monkeypatch.setattr(
        "rasr.preparation.sets.write_png", lambda image, path: write_png(image, path) or 1 / 0
    )
    writes = []
    monkeypatch.setattr(  # killed: nothing is recorded after the first time
        "rasr.preparation.jobs._write_record",
        lambda path, known: writes.append(1) or (len(writes) == 1 and _write_record(path, known)),
    )
    with pytest.raises(ZeroDivisionError):
        map_jobs(crop_image, [Job(originals / "a.png", target)], output / RECORD, workers=0, description="x")
    assert target.is_file()
    assert remove_stale(output, []) == 1 and not target.exists()


@pytest.mark.parametrize(
    ("name", "arguments", "written"),
    [
        ("lsdir", ("--min-side", "32", "--crop", "36"), "train"),
        ("rasr_flickr30", ("--crop", "32"), "train/fox"),
    ],
)
def test_names_that_differ_in_their_suffix_stay_two(prepare, originals, name, arguments, written):
    folder = "fox/train/" if name == "rasr_flickr30" else ""
    make(originals, f"{folder}a.png")
    Image.effect_noise((50, 40), 60).save(originals / f"{folder}a.jpg")
    assert prepare(name, originals, *arguments).returncode == 0
    output = originals.parent / "out"
    assert {path.name for path in (output / written).iterdir()} == {"a.png.png", "a.jpg.png"}
    rows = read_rows(output / "manifest.csv")
    assert len({row.image for row in rows}) == 2
    assert not torch.equal(*(read_image(row.image_path) for row in rows))


def test_references_that_are_gone_are_dropped_and_said(prepare, flickr):
    assert prepare("rasr_flickr30", flickr, "--crop", "32").returncode == 0
    manifest = flickr.parent / "out/manifest.csv"
    both = "reference/owl/1.png.png;reference/owl/2.png.png"
    manifest.write_text(manifest.read_text().replace("train,owl,,,", f"train,owl,,{both},"))
    (flickr / "owl/reference/2.png").unlink()
    done = prepare("rasr_flickr30", flickr, "--crop", "32")
    assert "2 rows lost references; run index.py assign= again" in done.stderr
    rows = [row for row in read_rows(manifest, "train") if row.category == "owl"]
    assert [row.references for row in rows] == [("reference/owl/1.png.png",)] * 2
    assert "lost references" not in prepare("rasr_flickr30", flickr, "--crop", "32").stderr


@pytest.mark.parametrize(
    ("name", "argument", "values"),
    [
        ("lsdir", "--crop", ("0", "-5", "x", "1.5")),
        ("lsdir", "--min-side", ("-1", "0")),
        ("lsdir", "--workers", ("-1",)),
        ("rasr_flickr30", "--crop", ("0", "-5")),
        ("realphoto60", "--photos", ("0",)),
        ("rasr_small", "--min-side", ("0",)),
        ("rasr_custom", "--crop", ("0",)),
        ("rasr_custom", "--short-side", ("-5",)),
        ("rasr_custom", "--train", ("-1", "0")),
        ("rasr_custom", "--test", ("-1",)),
        ("rasr_custom", "--min-reference", ("-1",)),
        ("rasr_custom", "--max-distance", ("300", "256", "-1")),
        ("rasr_custom", "--min-sharpness", ("nan", "inf", "-1", "x")),
    ],
)
def test_numbers_out_of_range_are_one_line(prepare, flickr, name, argument, values):
    for value in values:
        done = prepare(name, flickr, argument, value)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"error: argument {argument}: {value} is not a " in done.stderr
    assert not (flickr.parent / "out").exists()


def test_every_format_and_kind_is_cropped_as_it_is_read(originals, tmp_path):
    Image.effect_noise((50, 40), 60).save(originals / "grey.jpg")
    (result,) = map_jobs(
        crop_image,
        [Job(originals / "grey.jpg", tmp_path / "o.png", 32)],
        tmp_path / "r",
        workers=0,
        description="x",
    )
    assert result == {"width": 50, "height": 40}
    assert torch.equal(read_image(tmp_path / "o.png"), read_image(originals / "grey.jpg")[:, 4:36, 9:41])


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "folder", "arguments", "count"),
    [
        ("cufed5", "refsr/sceaux_sets", (), 14),
        ("lsdir", "photos/openimages_768", ("--min-side", "400", "--crop", "512"), 70),
        ("realphoto60", "photos/real_lq", (), 67),
    ],
)
def test_real_photographs_of_each_layout(shared_data, tmp_path, name, folder, arguments, count):
    arguments = ("--input", shared_data / folder, "--output", tmp_path, "--workers", "2", *arguments)
    done = run_logged(f"data/{name}/prepare.py", *arguments)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "manifest.csv")
    assert len(rows) >= count
    assert all((row.image_path if row.image else row.lq_path).is_file() for row in rows)
    assert name != "cufed5" or all(len(row.references) == 5 for row in rows)
