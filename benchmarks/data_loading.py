"""Images per second and core: how a training crop is read from JPEG and PNG, and what workers a GPU needs.

    python -m benchmarks.data_loading --photos FOLDER

Each way gives the same 512x512 crop as float32 (3, 512, 512), from a photograph of 2040x1356 made of each of
the folder's photographs:

- `floats, then crop`   read_image and a slice: what the loader did at first, the peer of this benchmark
- `crop, then floats`   what the loader does
- `simplejpeg`, `pyvips`  other decoders, where installed; pyvips stops behind the crop's last row
- `pre-cropped 768`     what `prepare.py` leaves on disk: a 768x768 file
- `shards`              the same bytes through litdata, where it is installed
- `loader`              the data set itself: image and reference, two files to a sample

One process and one thread throughout.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features

from benchmarks.common import describe_machine
from rasr.data.dataset import ReferenceDataset
from rasr.data.manifest import Row, write_manifest
from rasr.data.shards import ShardDataset, write_shards
from rasr.image_io import list_images, read_image, read_pixels, to_tensor

WIDTH, HEIGHT, PRE_CROP, CROP = 2040, 1356, 768, 512
SAVE = {"jpg": {"quality": 92}, "png": {}}
STEP_SECONDS, BATCH = 1.0, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder of photographs to make the files of"
    )
    parser.add_argument("--count", type=int, default=8, help="photographs to take")
    parser.add_argument("--seconds", type=float, default=4.0, help="to measure each way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jpeg = features.version("libjpeg_turbo")
    say(f"{describe_machine(packages=('pillow', 'numpy'))}; libjpeg-turbo {jpeg}")
    with tempfile.TemporaryDirectory() as folder:
        for extension in SAVE:
            files = make_files(list_images(args.photos)[: args.count], Path(folder), extension)
            measure_format(extension, files, Path(folder), args.seconds)


def measure_format(extension: str, files: dict[str, list[Path]], folder: Path, seconds: float) -> None:
    size = sum(path.stat().st_size for path in files["whole"]) / len(files["whole"]) / 1e6
    say(f"\n{extension}, {WIDTH}x{HEIGHT}, {size:.2f} MB each")
    whole, small = files["whole"], files["small"]
    base = report("floats, then crop", rate(crop_of_floats, whole, seconds))
    report("crop, then floats", rate(crop_of_pixels, whole, seconds), base)
    if extension == "jpg" and find_spec("simplejpeg"):
        report("simplejpeg", rate(crop_with_simplejpeg, whole, seconds), base)
    if find_spec("pyvips"):
        report("pyvips", rate(crop_with_pyvips, whole, seconds), base)
    report("pre-cropped 768", rate(crop_of_pixels, small, seconds), base)
    samples = {}
    for name, paths in files.items():
        manifest = folder / f"{extension}_{name}.csv"
        rows = [
            Row(path.name, "train", references=(paths[number - 1].name,)) for number, path in enumerate(paths)
        ]
        write_manifest(manifest, rows)
        dataset = ReferenceDataset(manifest, split="train", gt_size=CROP, seed=0)
        samples[name] = rate(
            lambda number, data=dataset: data[number, number % len(data)], range(10_000), seconds
        )
        report(f"loader, {name}, samples", samples[name])
    if find_spec("litdata"):
        write_shards(dataset, folder / f"{extension}_shards", shard_bytes=64 << 20)
        shards = ShardDataset(folder / f"{extension}_shards", gt_size=CROP, seed=0)
        found = rate(lambda number: shards[number, number % len(shards)], range(10_000), seconds)
        report("loader, shards of small, samples", found)
    for name, found in samples.items():
        workers = BATCH / STEP_SECONDS / found
        say(f"  workers for {BATCH} samples every {STEP_SECONDS:g} s, {name}: {workers:.2f}")


def make_files(photos: list[Path], folder: Path, extension: str) -> dict[str, list[Path]]:
    """Write each photograph whole and pre-cropped."""
    files: dict[str, list[Path]] = {"whole": [], "small": []}
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            whole = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        left, top = (WIDTH - PRE_CROP) // 2, (HEIGHT - PRE_CROP) // 2
        small = whole.crop((left, top, left + PRE_CROP, top + PRE_CROP))
        for name, image in (("whole", whole), ("small", small)):
            path = folder / f"{name}_{number}.{extension}"
            image.save(path, **SAVE[extension])
            files[name].append(path)
    return files


def crop_of_floats(path: Path) -> torch.Tensor:
    return cut(read_image(path).permute(1, 2, 0)).permute(2, 0, 1).contiguous()


def crop_of_pixels(path: Path) -> torch.Tensor:
    return to_tensor(cut(read_pixels(path)))


def crop_with_simplejpeg(path: Path) -> torch.Tensor:
    import simplejpeg

    return to_tensor(cut(simplejpeg.decode_jpeg(path.read_bytes())))


def crop_with_pyvips(path: Path) -> torch.Tensor:
    import pyvips

    image = pyvips.Image.new_from_file(str(path), access="sequential")
    left, top = place(image.width), place(image.height)
    return to_tensor(image.crop(left, top, CROP, CROP).numpy())


def cut(image):
    top, left = place(image.shape[0]), place(image.shape[1])
    return image[top : top + CROP, left : left + CROP]


def place(length: int) -> int:
    return int(RANDOM.integers(length - CROP + 1))


RANDOM = np.random.default_rng(0)


def rate(function: Callable, items, seconds: float) -> float:
    """Return calls per second of processor time."""
    function(items[0])
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        function(items[count % len(items)])
        count += 1
    return count / (time.process_time() - start)


def report(name: str, found: float, base: float | None = None) -> float:
    ratio = f"  x{found / base:.2f}" if base else ""
    say(f"  {name:34s} {found:7.1f} /s per core{ratio}")
    return found


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
