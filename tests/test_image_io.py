"""Every kind of image file that Pillow opens, and every kind of file that it does not."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from safetensors.torch import save_file

from rasr.errors import RasrError
from rasr.image_io import (
    ImageReadError,
    atomic_path,
    content_hash,
    list_images,
    read_image,
    to_uint8,
    write_png,
)


def pixel(path, x=0, y=0):
    """One pixel of the file as three levels of 0..255."""
    image = read_image(path)
    assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3
    assert image.min() >= 0 and image.max() <= 1
    return [round(level * 255, 2) for level in image[:, y, x].tolist()]


def save(image, path, **options):
    image.save(path, **options)
    return path


def write_raw_png(path, colour_type, depth, values, *, transparency=b""):
    """Write a PNG that Pillow itself cannot write. `values`: (H, W, C) of unsigned integers."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + (chunk(b"tRNS", transparency) if transparency else b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def test_rgb_keeps_channel_order_and_position(tmp_path):
    image = Image.new("RGB", (3, 2), (10, 20, 30))
    image.putpixel((2, 1), (200, 100, 50))
    path = save(image, tmp_path / "a.png")
    assert read_image(path).shape == (3, 2, 3)
    assert read_image(str(path)).is_contiguous()
    assert pixel(path) == [10, 20, 30]
    assert pixel(path, 2, 1) == [200, 100, 50]


@pytest.mark.parametrize(
    ("mode", "colour", "extension", "expected"),
    [
        ("1", 1, "png", [255, 255, 255]),
        ("L", 70, "png", [70, 70, 70]),
        ("YCbCr", (100, 128, 128), "tif", [100, 100, 100]),
        ("CMYK", (0, 255, 0, 0), "tif", [255, 0, 255]),
        ("CMYK", (0, 0, 0, 255), "jpg", [0, 0, 0]),
        ("RGBX", (1, 2, 3, 0), "tif", [1, 2, 3]),
        ("I;16", 0x8080, "png", [128, 128, 128]),
        ("I;16", 0x1234, "tif", [round(0x1234 / 257, 2)] * 3),
        ("I;16B", 0x1234, "tif", [round(0x1234 / 257, 2)] * 3),
        ("I", 0x8080, "tif", [128, 128, 128]),
        ("F", 0.5, "tif", [127.5, 127.5, 127.5]),
        ("F", 51.0, "tif", [51, 51, 51]),
    ],
)
def test_modes_without_alpha(tmp_path, mode, colour, extension, expected):
    path = save(Image.new(mode, (9, 5), colour), tmp_path / f"a.{extension}")
    assert pixel(path) == expected
    assert read_image(path).shape == (3, 5, 9)


def test_lab_goes_through_colour_management(tmp_path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), (200, 60, 30)), srgb, lab, outputMode="LAB")
    path = save(image, tmp_path / "lab.tif")
    assert Image.open(path).mode == "LAB"
    assert np.allclose(pixel(path), [200, 60, 30], atol=3)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("LA", (0, 0), [255, 255, 255]),
        ("LA", (100, 51), [round(100 * 0.2 + 255 * 0.8, 2)] * 3),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (0, 100, 255, 51), [204, 224, 255]),
    ],
)
def test_alpha_is_composited_over_white(tmp_path, mode, colour, expected):
    assert pixel(save(Image.new(mode, (2, 2), colour), tmp_path / "a.png")) == expected


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    plain = save(image, tmp_path / "plain.png")
    assert (pixel(plain), pixel(plain, 1)) == ([10, 20, 30], [200, 100, 50])
    for extension in ("png", "gif"):
        path = save(image, tmp_path / f"clear.{extension}", transparency=1)
        assert (pixel(path), pixel(path, 1)) == ([10, 20, 30], [255, 255, 255])
    translucent = save(image, tmp_path / "half.png", transparency=bytes([51, 255]))
    assert pixel(translucent) == [206, 208, 210]


def test_transparent_colour_of_rgb_and_of_deep_gray(tmp_path):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    path = save(image, tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert (pixel(path), pixel(path, 1)) == ([255, 255, 255], [9, 9, 9])
    gray = np.array([[[0x0102], [0x8080]]])
    path = write_raw_png(tmp_path / "gray.png", 0, 16, gray, transparency=b"\x01\x02")
    assert (pixel(path), pixel(path, 1)) == ([255, 255, 255], [128, 128, 128])


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path):
    rgb = write_raw_png(tmp_path / "rgb.png", 2, 16, np.array([[[0x12FF, 0x80FF, 0xFFFF]]]))
    assert pixel(rgb) == [0x12, 0x80, 0xFF]
    rgba = write_raw_png(tmp_path / "rgba.png", 6, 16, np.array([[[0, 0, 0, 0x33FF]]]))
    assert pixel(rgba) == [204, 204, 204]
    gray_alpha = write_raw_png(tmp_path / "la.png", 4, 16, np.array([[[0x12FF, 0xFFFF]]]))
    assert pixel(gray_alpha) == [0x12] * 3


def test_sixteen_bit_portable_graymap(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 1 1 65535\n\x80\x80")
    assert pixel(tmp_path / "a.pgm") == [128, 128, 128]


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_exif_rotation_is_applied(tmp_path, extension):
    image = Image.new("RGB", (16, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: the left becomes the top
    path = save(image, tmp_path / f"a.{extension}", exif=exif)
    upright = read_image(path)
    assert upright.shape == (3, 16, 8)
    assert upright[:, :4].min() > 0.9 and upright[:, -4:].max() < 0.1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_pixels(tmp_path):
    path = save(
        Image.new("RGB", (4, 2), (7, 8, 9)), tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"
    )
    assert pixel(path) == [7, 8, 9]


@pytest.mark.parametrize("extension", ["gif", "png", "webp", "tif"])
def test_first_frame_of_an_animation(tmp_path, extension):
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    options = {"lossless": True} if extension == "webp" else {}
    path = save(first, tmp_path / f"a.{extension}", save_all=True, append_images=[second], **options)
    assert Image.open(path).n_frames == 2
    assert pixel(path) == [255, 0, 0]


def truncated_png(path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue()[:5000])


def truncated_jpeg(path):
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "red").save(buffer, format="JPEG")
    path.write_bytes(buffer.getvalue()[:-60])


def deep_negative(path):
    Image.new("I", (2, 2), -5).save(path, format="TIFF")


def deep_large(path):
    Image.new("I", (2, 2), 65536).save(path, format="TIFF")


def float_nan(path):
    Image.new("F", (2, 2), float("nan")).save(path, format="TIFF")


def float_large(path):
    Image.new("F", (2, 2), 300.0).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("hello"), "not an image"),
        (truncated_png, "cannot be decoded"),
        (truncated_jpeg, "cannot be decoded"),
        (deep_negative, "integer values from -5 to -5"),
        (deep_large, "integer values from 65536"),
        (float_nan, "float values"),
        (float_large, "float values from 300 to 300"),
    ],
)
def test_unreadable_files_are_one_line_with_the_name(tmp_path, make, reason):
    path = tmp_path / "the file.png"
    make(path)
    with pytest.raises(ImageReadError, match=reason) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; " in message  # the mend
    assert isinstance(caught.value, RasrError)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(Image.new("L", (100, 100)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ImageReadError, match=r"bomb\.png: more than 8,000 pixels; shrink it"):
        read_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_by_permission(tmp_path):
    path = save(Image.new("L", (2, 2)), tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(ImageReadError, match="permission denied; make the file readable"):
        read_image(path)


def test_write_png_rounds_clamps_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "a.png"
    levels = torch.tensor([-1.0, 0.499 / 255, 0.501 / 255, 254.6 / 255, 1.0, 7.0])
    write_png(levels.expand(3, 2, 6).clone().requires_grad_(), path)
    assert [round(level * 255) for level in read_image(path)[0, 0].tolist()] == [0, 0, 1, 255, 255, 255]
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    with Image.open(path) as image:
        assert (image.mode, image.format, image.size) == ("RGB", "PNG", (6, 2))


def test_write_then_read_is_exact_for_8_bit_levels(tmp_path):
    image = torch.randint(0, 256, (3, 17, 31)).float() / 255
    write_png(image, tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize(
    "bad", [torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), torch.full((3, 4, 4), torch.nan)]
)
def test_write_png_refuses_what_is_no_image(tmp_path, bad):
    with pytest.raises(ValueError, match=r"shape|non-finite"):
        write_png(bad, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_to_uint8_puts_channels_last():
    assert to_uint8(torch.tensor([0.0, 0.2, 1.0]).reshape(3, 1, 1)).tolist() == [[[0, 51, 255]]]


def test_atomic_path_onto_a_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(RasrError, match="is a folder; name a file"), atomic_path(tmp_path):
        pytest.fail("the work began")


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path  # the same file system: the rename is atomic
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_leaves_the_permissions_of_any_new_file(tmp_path):
    with atomic_path(tmp_path / "weights.safetensors") as temporary:
        save_file({"a": torch.zeros(1)}, temporary)
    (tmp_path / "plain.txt").write_text("")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1, modes


def test_list_images_is_recursive_sorted_and_knows_extensions(tmp_path):
    names = ["b.PNG", "a.jpeg", "sub/c.webp", "sub/deep/d.tif", "notes.txt", "data.h5", "model.ckpt"]
    names += [".hidden.png", ".cache/e.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert listed == ["a.jpeg", "b.PNG", "sub/c.webp", "sub/deep/d.tif"]


def test_list_images_of_a_file_nothing_and_an_empty_folder(tmp_path):
    (tmp_path / "odd.name").write_bytes(b"x")
    assert list_images(tmp_path / "odd.name") == [tmp_path / "odd.name"]
    with pytest.raises(RasrError, match="no image file"):
        list_images(tmp_path)
    with pytest.raises(RasrError, match="no such file or directory"):
        list_images(tmp_path / "missing")


def test_content_hash_depends_on_bytes_only(tmp_path):
    for name, data in (("a", b"abc"), ("b", b"abc"), ("c", b"abd")):
        (tmp_path / name).write_bytes(data)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b") != content_hash(tmp_path / "c")
    assert content_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ImageReadError, match="no such file"):
        content_hash(tmp_path / "missing")
