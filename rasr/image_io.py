"""Image files in, image files out: the one place where the project opens or writes a picture.

Inside the program an image is always RGB, float32, in [0, 1], channels first. Whatever Pillow opens is
brought to that form here; whatever it cannot open is one :class:`ImageReadError`.

What happens to each kind of file:

- gray, 1-bit, palette, YCbCr, HSV, CMYK: Pillow's own conversion to RGB. CIE Lab goes through LittleCMS.
- alpha, in any form (a channel, a transparent palette entry, a transparent colour): composited over white.
- 16-bit gray ("I;16", or "I" with 16-bit values): divided by 65535, full precision kept.
- 16-bit RGB, RGBA and gray with alpha: Pillow itself has no such mode and keeps the high byte of each
  channel, so these arrive with 8-bit precision.
- float ("F"): taken as it is if it lies in [0, 1], as 0..255 (Pillow's own scale) if it exceeds 1.
- EXIF orientation is applied; of an animation or a multi-page file the first frame is taken.
- Embedded colour profiles are not applied, as in every super-resolution benchmark.
"""

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from rasr.errors import RasrError

# Pillow registers these, but only as stubs that need a foreign decoder.
_STUB_FORMATS = {"BUFR", "GRIB", "HDF5", "MPEG"}


class ImageReadError(RasrError):
    """A file that cannot be read as an image; the message starts with its path."""


def read_image(path: str | Path) -> Tensor:
    """Read any image file that Pillow opens.

    Returns:
        (3, H, W) float32, RGB, in [0, 1].

    Raises:
        ImageReadError: missing, a directory, empty, damaged, too large or not an image.
    """
    return to_tensor(read_pixels(path))


def read_pixels(path: str | Path) -> np.ndarray:
    """Read an image as it is decoded, for callers that need only a part of it as floats.

    Returns:
        (H, W, 3), RGB: uint8 levels of an image with 8 bits and no alpha; else float32 in [0, 1].

    Raises:
        ImageReadError: as :func:`read_image`.
    """
    path = Path(path)
    _check_file(path)
    return _decode(path, str(path))


def decode_pixels(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of an image file as :func:`read_pixels` does; `name` stands in for its path."""
    return _decode(io.BytesIO(data), name)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return (3, H, W) float32 in [0, 1] for what :func:`read_pixels` gives, or for a part of it."""
    scale = np.float32(255 if pixels.dtype == np.uint8 else 1)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(planes.astype(np.float32) / scale)


def write_png(image: Tensor, path: str | Path) -> None:
    """Write an 8-bit RGB PNG; parent folders are made, and the file appears only when it is complete.

    Args:
        image: (3, H, W), RGB, in [0, 1]; values outside are clamped, the rest is rounded to the nearest
            of the 256 levels.
        path: target; an existing file is replaced.
    """
    pixels = to_uint8(image)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def to_uint8(image: Tensor) -> np.ndarray:
    """Return (H, W, 3) uint8 for an image (3, H, W) in [0, 1]; values outside are clamped, not wrapped."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image of shape (3, H, W), got {tuple(image.shape)}")
    levels = image.detach().to("cpu", torch.float32).clamp(0, 1).mul(255).round()
    if not torch.isfinite(levels).all():
        raise ValueError("the image holds non-finite values")
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def list_images(path: str | Path) -> list[Path]:
    """List the image files that a path stands for.

    Args:
        path: a file (returned as it is, whatever its extension) or a directory (searched recursively for
            the extensions that Pillow reads; hidden files and folders are passed over).

    Returns:
        Sorted paths, each starting with `path`; never empty.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RasrError(f"{path}: no such file or directory; check the path")
    known = _readable_extensions()
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in known
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    ]
    if not found:
        raise RasrError(f"{path}: no image file in this directory; check the path")
    return sorted(found)


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 of the file's bytes, in hex: the identity of a file whatever its name."""
    path = Path(path)
    _check_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# Can be read only by setting it, which is safe before there are threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def share_by_umask(path: str | Path) -> None:
    """Give a file the permissions of one that `open` makes: safetensors leaves the group without access."""
    Path(path).chmod(0o666 & ~_UMASK)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that is renamed onto it when the block ends without an error.

    The file is readable by whom the umask says, also where safetensors wrote it for its owner alone.
    """
    path = Path(path)
    if path.is_dir():
        raise RasrError(f"{path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RasrError(f"{path.parent} cannot be made a folder ({reason}); give another path") from error
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")  # short: long file names stay writable
    try:
        yield temporary
        share_by_umask(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode(source: Path | io.BytesIO, name: str) -> np.ndarray:
    try:
        with Image.open(source) as image:
            image.load()
            return _to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged data
        raise ImageReadError(f"{name}: {_explain(error)}") from error


class _Unsupported(Exception):
    """Pixel values with no clear place in [0, 1]; the text says the mend."""


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ImageReadError(f"{path}: is a directory, not an image; name a file in it")
    if not path.exists():
        raise ImageReadError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise ImageReadError(f"{path}: the file is empty (0 bytes); copy or export it again")


def _explain(error: Exception) -> str:
    if isinstance(error, _Unsupported):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; shrink it or cut it up first"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be decoded ({reason}); copy or export it again"


def _upright(image: Image.Image) -> Image.Image:
    # In place: else Pillow copies the whole image where there is nothing to turn.
    with suppress(Exception):  # a broken EXIF block says nothing about the pixels: keep them as they lie
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) for an image of any mode: uint8, or float32 in [0, 1]; see `read_pixels`."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray_to_rgb(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if image.mode == "La":  # premultiplied gray converts to nothing but LA
        image = image.convert("LA")
    if not image.has_transparency_data:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + (1 - alpha)


def _deep_gray_to_rgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) in [0, 1] for the one-channel modes that hold more than 8 bits."""
    raw = np.asarray(image)
    low, high = raw.min(), raw.max()
    if image.mode == "F":
        if not (np.isfinite(raw).all() and low >= 0 and high <= 255):
            raise _Unsupported(f"float values from {low:g} to {high:g}; rescale them to 0..1")
        gray = raw / np.float32(255 if high > 1 else 1)
    else:
        if low < 0 or high > 65535:
            raise _Unsupported(f"integer values from {low} to {high}; save it with 8 or 16 bits")
        gray = raw.astype(np.float32) / 65535
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            gray[raw == transparent] = 1
    return np.repeat(gray[..., None], 3, axis=2)


def _readable_extensions() -> set[str]:
    extensions = Image.registered_extensions()  # loads Pillow's plugins, hence not at import
    readable = {ext for ext, name in extensions.items() if name in Image.OPEN and name not in _STUB_FORMATS}
    return readable | {".mpo"}  # opened by the JPEG plugin


def read_sidecar(image_path: str | Path) -> str:
    """Read the prompt beside an image, the `.txt` of its name, white space folded; "" if there is none."""
    file = Path(image_path).with_suffix(".txt")
    try:
        return " ".join(file.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise RasrError(f"{file}: not UTF-8 text; save it as UTF-8") from error
