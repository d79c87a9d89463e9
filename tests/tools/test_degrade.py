"""`python -m rasr.tools degrade`: the command as a user types it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from rasr.degradation import RealESRGANDegradation
from rasr.image_io import ImageReadError, read_image, write_png
from rasr.preparation import test_set
from rasr.seeding import sample_seed
from tests.helpers import REPOSITORY, run_tool


@pytest.fixture
def photos(tmp_path):
    """Five images with something to see in them, one of a size that 4 does not divide."""
    for n, size in enumerate([(64, 64), (50, 67), (64, 96), (64, 64), (80, 64)]):
        image = F.interpolate(torch.rand(1, 3, 8, 8), size=size, mode="bicubic")[0]
        write_png(image, tmp_path / "photos" / f"c{n % 2}" / f"{n}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        return run_tool("degrade", "input=photos", *arguments, cwd=tmp_path)

    return run


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def entries(folder):
    return [json.loads(line) for line in (folder / "parameters.jsonl").read_text().splitlines()]


def test_a_test_set_with_its_record(run, photos, tmp_path):
    done = run("output=set", "seed=7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "5 images degraded, set" and "degrading" in done.stderr
    names = {f"c{n % 2}/{n}.png" for n in range(5)}
    expected = {f"{kind}/{name}" for kind in ("gt", "lq") for name in names} | {"parameters.jsonl"}
    assert set(files(tmp_path / "set")) == expected

    record = entries(tmp_path / "set")
    assert [entry["image"] for entry in record] == sorted(names)
    for entry in record:
        gt, lq = read_image(tmp_path / "set" / entry["gt"]), read_image(tmp_path / "set" / entry["lq"])
        photo = read_image(photos / entry["image"])
        assert torch.equal(gt, photo[:, : gt.shape[1], : gt.shape[2]])
        assert [side - side % 4 for side in photo.shape[1:]] == list(gt.shape[1:])
        # The record alone makes the image again, parameters, noise and all.
        assert entry["image_seed"] == sample_seed(7, entry["image"])
        again = RealESRGANDegradation("fixed", parameters=entry["parameters"])
        assert torch.equal(again(gt[None], seeds=torch.tensor([entry["image_seed"]]))[0], lq)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(run, photos, tmp_path):
    common = ["gt_size=32", "degradation=realesrgan"]
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(f"output={folder}", f"seed={seed}", *common).returncode == 0
    one, same, other = (files(tmp_path / folder) for folder in "abc")
    assert one == same
    assert all(one[name] != other[name] for name in one if not name.startswith("gt/"))
    image = read_image(tmp_path / "a" / "gt" / "c1" / "1.png")
    assert torch.equal(image, read_image(photos / "c1" / "1.png")[:, 9:41, 17:49])


def test_an_image_does_not_depend_on_its_company(run, photos, tmp_path):
    run("output=all", "seed=1")
    for name in ("c0/0.png", "c1/3.png"):
        (photos / name).unlink()
    run("output=some", "seed=1")
    everything, some = files(tmp_path / "all"), files(tmp_path / "some")
    del some["parameters.jsonl"]
    assert some and some.items() <= everything.items()


def test_scale_and_bicubic(run, photos, tmp_path):
    assert run("output=set", "seed=0", "scale=2", "degradation=bicubic").returncode == 0
    assert all(entry["parameters"] is None for entry in entries(tmp_path / "set"))
    assert read_image(tmp_path / "set" / "lq" / "c0" / "0.png").shape == (3, 32, 32)


def test_an_interrupted_run_goes_on(run, photos, tmp_path, monkeypatch):
    run("output=straight", "seed=1")
    real, made = test_set._degrade, []

    def stop_at_the_third(path, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path)
        real(path, *rest)

    settings = {"degradation": RealESRGANDegradation("osediff"), "seed": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(test_set, "_degrade", stop_at_the_third)
        test_set.make_test_set(photos, tmp_path / "set", **settings)
    record = tmp_path / "set" / "parameters.jsonl"
    record.write_text(record.read_text() + '{"image": "c0/4.p')  # cut off in the middle of a line

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "lq").rglob("*.png")}
    assert len(before) == 2
    done = run("output=set", "seed=1")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert files(tmp_path / "set") == files(tmp_path / "straight")


def test_changed_and_removed_images_are_followed(run, photos, tmp_path):
    run("output=set", "seed=1")
    before = files(tmp_path / "set")
    write_png(torch.rand(3, 64, 64), photos / "c0" / "0.png")
    (photos / "c0" / "2.png").unlink()
    (photos / "c1" / "1.png").rename(photos / "c1" / "1.tif")  # whose results have the same names
    (tmp_path / "set" / "lq" / "c0" / "4.png").unlink()
    assert run("output=set", "seed=1").returncode == 0
    after = files(tmp_path / "set")
    assert before.keys() - after.keys() == {"gt/c0/2.png", "lq/c0/2.png"}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"gt/c0/0.png", "lq/c0/0.png", "lq/c1/1.png", "parameters.jsonl"}


def test_damaged_and_small_images_are_named_and_the_rest_is_done(run, photos, tmp_path):
    (photos / "c0" / "0.png").write_bytes(b"nothing")
    write_png(torch.rand(3, 3, 9), photos / "c1" / "small.png")
    done = run("output=set", "seed=1")
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "2 passed over, the rest is done" in line and "photos/c0/0.png" in line
    assert [entry["image"] for entry in entries(tmp_path / "set")] == [
        f"c{n % 2}/{n}.png" for n in (2, 4, 1, 3)
    ]
    with pytest.raises(ImageReadError, match=r"small\.png: 9x3 is smaller than 4; leave it out"):
        test_set._cut(torch.rand(3, 3, 9), None, 4, photos / "c1" / "small.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=set"], "missing key: seed"),
        (["output=set", "seed=x"], "seed=x is not a whole number"),
        (["output=set", "seed=1", "scale=0"], "scale=0 is not a whole number of at least 1"),
        (["output=set", "seed=1", "gt_size=30"], "gt_size=30 is not a multiple of scale=4"),
        (["output=set", "seed=1", "gt_size=0"], "gt_size=0 is not a whole number of at least 1"),
        (["output=set", "seed=1", "gt_size=-64"], "gt_size=-64 is not a whole number of at least 1"),
        (["output=set", "seed=1", "gt_size=abc"], "gt_size=abc is not a whole number"),
        (["output=set", "seed=1", "scale=2.5"], "scale=2.5 is not a whole number"),
        (["output=set", "seed=1", "degradation.scale=0"], "degradation.scale=0 is not a whole number"),
        (["output=photos/c0/0.png", "seed=1"], "output=photos/c0/0.png lies inside input=photos"),
        (["output=file", "seed=1"], "file cannot be made a folder (file exists); give another path"),
        (["output=file/set", "seed=1"], "file/set cannot be made a folder (not a directory)"),
        (["output=photos/set", "seed=1"], "output=photos/set lies inside input=photos"),
        (["output=set", "seed=1", "input=nothing"], "nothing: no such file or directory"),
        (["output=set", "seed=1", "degradation.preset=fixed"], "give preset=fixed its parameters"),
        (["output=old", "seed=2"], "output=old holds a test set with other seed; give another folder"),
        (["output=old", "seed=1", "degradation=realesrgan"], "with other preset"),
        (["output=old", "seed=1", "gt_size=32"], "with other gt_size"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(run, photos, tmp_path, arguments, message):
    if "output=old" in arguments:
        test_set.make_test_set(photos, tmp_path / "old", RealESRGANDegradation("osediff"), seed=1)
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("source", "output"),
    [("set/gt", "set"), ("set/lq", "set"), ("set/gt/c0", "set"), ("set/gt/c0/0.png", "set"), ("link", "set")],
)
def test_results_never_replace_the_images_they_are_made_from(run, photos, tmp_path, source, output):
    for folder in ("gt", "lq"):
        shutil.copytree(photos, tmp_path / "set" / folder)
    (tmp_path / "link").symlink_to(tmp_path / "set" / "gt")
    before = files(tmp_path)
    done = run(f"input={source}", f"output={output}", "seed=1")
    assert done.returncode == 2
    assert f"lies among the results in output={output}; give another" in done.stderr.splitlines()[-1]
    assert files(tmp_path) == before


def test_a_result_that_is_a_link_to_an_original_is_refused(run, photos, tmp_path):
    (tmp_path / "set" / "gt").mkdir(parents=True)
    (tmp_path / "set" / "gt" / "c0").symlink_to(photos / "c0")
    before = files(tmp_path)
    done = run("output=set", "seed=1")
    assert done.returncode == 2 and "set/gt/c0/0.png is one of the images of input=photos" in done.stderr
    assert files(tmp_path) == before


def test_folders_may_be_called_by_numbers(run, photos, tmp_path):
    photos.rename(tmp_path / "2024")
    done = run("input=2024", "output=5", "seed=1")
    assert done.returncode == 0, done.stderr
    assert len(entries(tmp_path / "5")) == 5


def test_names_that_collide_are_refused(run, photos):
    (photos / "c0" / "0.jpg").write_bytes((photos / "c0" / "0.png").read_bytes())
    done = run("output=set", "seed=1")
    assert done.returncode == 2 and "would both become c0/0.png; rename one of them" in done.stderr


def test_other_fixed_parameters_need_another_folder(run, photos, tmp_path):
    assert run("output=set", "seed=1", "degradation=fixed").returncode == 0
    assert len({json.dumps(entry["parameters"]) for entry in entries(tmp_path / "set")}) == 1
    done = run("output=set", "seed=1", "degradation=fixed", "degradation.parameters.first.noise_level=30")
    assert done.returncode == 2 and "with other parameters" in done.stderr


@pytest.mark.slow
def test_the_module_runs_as_a_command(photos, tmp_path):
    command = [sys.executable, "-m", "rasr.tools", "degrade", "input=photos/c0/0.png", "output=set", "seed=1"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert set(files(tmp_path / "set")) == {"parameters.jsonl", "gt/0.png", "lq/0.png"}
