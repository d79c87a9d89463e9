"""Weights that others trained: from a given file, a cache or the internet; their absence is one quick error.

Nothing is unpickled, and nothing waits for a network that is not there. HF_HUB_OFFLINE=1 forbids every
download, torch's too.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from torch import Tensor, nn

from rasr.errors import RasrError, one_line

logger = logging.getLogger(__name__)

_TIMEOUT = 5.0  # seconds to find out that there is no network; the Hugging Face hub's own retries take 23


def fetch_torch_file(url: str, *, model: str, key: str) -> Path:
    """The file of torch's own cache that belongs to `url`, downloaded if it is not there yet.

    Args:
        url: as torchvision writes it; the name ends in the first digits of the content's SHA-256.
        model: what a person calls the network.
        key: configuration key by which the user may give a file instead.
    """
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if place.is_file():
        return place
    absent = (
        f"the weights of {model} are neither at {place} nor within reach; fetch {url} elsewhere and put it "
        f"there, or give it by {key}=FILE"
    )
    if not is_within_reach(url):
        raise RasrError(absent)
    logger.info("downloading %s to %s", url, place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(place), hash_prefix=place.stem.rsplit("-", 1)[-1])
    except (OSError, RuntimeError) as error:  # RuntimeError: other content than the name promises
        raise RasrError(f"{absent} ({one_line(error)})") from error
    return place


def is_hub_id(name: str | Path) -> bool:
    """Whether a name can be a hub repository; a path of another depth than owner/name cannot."""
    try:
        validate_repo_id(str(name))
    except HFValidationError:
        return False
    return True


def fetch_hub_folder(repo_id: str, files: Sequence[str], *, key: str, **hub_options: Any) -> Path:
    """The folder of Hugging Face's cache with files of a hub repository, downloaded or brought up to date.

    Args:
        repo_id: `owner/name`.
        files: their names or patterns.
        key: configuration key by which the user may give a folder instead.
        hub_options: of `huggingface_hub.snapshot_download`, such as `revision` and `token`.
    """
    from huggingface_hub import constants, snapshot_download

    options = {"local_files_only": not is_within_reach(constants.ENDPOINT)} | hub_options
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **options))
    except Exception as error:  # the hub and httpx each have their own
        where = f"and not to be had from the hub ({one_line(error)})"
        if options["local_files_only"]:
            where = "not in the hub's cache, and the hub is out of reach"
        raise RasrError(
            f"{key}={repo_id} is no folder here, {where}; give {key}=FOLDER, or check the name and go online"
        ) from error


def read_tensors(path: str | Path, *, key: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of one that torch saved, on the CPU.

    Args:
        path: the file.
        key: configuration key that error messages name.
    """
    path = Path(path)
    if not path.is_file():
        raise RasrError(f"{key}={path}: no such file; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in tensors.values()):
            raise TypeError("it holds other things than tensors")
    except Exception as error:  # torch, pickle and safetensors each have their own
        mend = f"fetch it again or give another by {key}=FILE"
        raise RasrError(f"{path}: cannot be read as weights ({one_line(error)}); {mend}") from error
    return tensors


def load_timm_model(
    model_name: str,
    weights: str | None = None,
    *,
    key: str,
    alternative: str = "",
    img_size: int | None = None,
) -> nn.Module:
    """Load a timm model without its classifier.

    Args:
        model_name: as timm spells it, with or without the tag of its weights.
        weights: a local file with the whole model; None takes the Hugging Face cache, then the hub.
        key: configuration key of `weights`, for error messages.
        alternative: what else the user could do without the weights, as the end of an error message.
        img_size: side of the input for models with a fixed grid of patches; None takes the model's own.
    """
    import timm  # seconds of import

    pretrained_cfg = timm.get_pretrained_cfg(model_name)
    if pretrained_cfg is None or not timm.is_model(model_name):
        raise RasrError(f"timm has no such model: {model_name}; timm.list_models() lists what there is")
    source: dict[str, Any] = {}
    if weights is not None:
        if not Path(weights).is_file():
            raise RasrError(f"{key}={weights}: no such file; give the weights of {model_name}")
        source = {"file": str(weights)}
    elif (cached := _find_in_hub_cache(pretrained_cfg)) is not None:
        source = {"file": cached}
    elif not _is_hub_within_reach():
        raise _absent_from_hub(model_name, pretrained_cfg, key, alternative)
    # Only models with a fixed grid of patches take img_size; the others accept any input.
    kwargs = {"img_size": img_size} if img_size and pretrained_cfg.fixed_input_size else {}
    try:
        # With the model's own number of classes timm loads strictly; with num_classes=0 it would accept a
        # file that fits nothing and leave random weights.
        net = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=source, **kwargs)
    except OSError as error:
        if source:
            raise RasrError(f"{source['file']}: cannot be read as weights ({one_line(error)})") from error
        raise _absent_from_hub(model_name, pretrained_cfg, key, alternative) from error
    except Exception as error:  # torch, pickle and safetensors each have their own
        where = source.get("file", pretrained_cfg.hf_hub_id)
        mend = f"give the right file by {key}=FILE"
        raise RasrError(f"{where}: not the weights of {model_name} ({one_line(error)}); {mend}") from error
    net.reset_classifier(0)
    return net


def _find_in_hub_cache(pretrained_cfg: Any) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    if not pretrained_cfg.hf_hub_id:
        return None
    names = [pretrained_cfg.hf_hub_filename] if pretrained_cfg.hf_hub_filename else []
    for name in [*names, "model.safetensors", "pytorch_model.bin"]:
        found = try_to_load_from_cache(pretrained_cfg.hf_hub_id, name)
        if isinstance(found, str):
            return found
    return None


def _is_hub_within_reach() -> bool:
    from huggingface_hub import constants

    return is_within_reach(constants.ENDPOINT)


def is_within_reach(url: str) -> bool:
    """Whether something answers there; False without a question where HF_HUB_OFFLINE forbids downloads."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError:  # it answered
        return True
    except OSError:
        return False


def _absent_from_hub(model_name: str, pretrained_cfg: Any, key: str, alternative: str) -> RasrError:
    origin = f"huggingface.co/{pretrained_cfg.hf_hub_id}" if pretrained_cfg.hf_hub_id else pretrained_cfg.url
    return RasrError(
        f"the weights of {model_name} are neither in the cache nor within reach; fetch model.safetensors of "
        f"{origin} elsewhere and give it by {key}=FILE{alternative and f', or {alternative}'}"
    )
