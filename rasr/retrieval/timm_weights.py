"""Weights of timm models: local file, Hugging Face cache or hub; their absence is one quick error."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from torch import nn

from rasr.errors import RasrError

_HUB_TIMEOUT = 5.0  # seconds to find out that there is no network; the hub's own retries take 23


def load_timm_model(model_name: str, weights: str | None = None, img_size: int | None = None) -> nn.Module:
    """Load a timm model without its classifier.

    Args:
        model_name: as timm spells it, with or without the tag of its weights.
        weights: a local file with the whole model; None takes the cache, then the hub.
        img_size: side of the input for models with a fixed grid of patches; None takes the model's own.
    """
    import timm  # seconds of import

    pretrained_cfg = timm.get_pretrained_cfg(model_name)
    source: dict[str, Any] = {}
    if weights is not None:
        if not Path(weights).is_file():
            raise RasrError(f"encoder.weights={weights}: no such file; give the weights of {model_name}")
        source = {"file": str(weights)}
    elif (cached := _find_in_cache(pretrained_cfg)) is not None:
        source = {"file": cached}
    elif not _is_hub_within_reach():
        raise _absent(model_name, pretrained_cfg)
    # Only models with a fixed grid of patches take img_size; the others accept any input.
    kwargs = {"img_size": img_size} if img_size and pretrained_cfg.fixed_input_size else {}
    try:
        # With the model's own number of classes timm loads strictly; with num_classes=0 it would accept a
        # file that fits nothing and leave random weights.
        net = timm.create_model(model_name, pretrained=True, pretrained_cfg_overlay=source, **kwargs)
    except OSError as error:
        if source:
            raise RasrError(f"{source['file']}: cannot be read as weights ({_one_line(error)})") from error
        raise _absent(model_name, pretrained_cfg) from error
    except Exception as error:  # torch, pickle and safetensors each have their own
        where = source.get("file", pretrained_cfg.hf_hub_id)
        mend = "give the right file by encoder.weights=FILE"
        raise RasrError(f"{where}: not the weights of {model_name} ({_one_line(error)}); {mend}") from error
    net.reset_classifier(0)
    return net


def _find_in_cache(pretrained_cfg: Any) -> str | None:
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

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=_HUB_TIMEOUT):
            return True
    except urllib.error.HTTPError:  # it answered
        return True
    except OSError:
        return False


def _absent(model_name: str, pretrained_cfg: Any) -> RasrError:
    origin = f"huggingface.co/{pretrained_cfg.hf_hub_id}" if pretrained_cfg.hf_hub_id else pretrained_cfg.url
    return RasrError(
        f"the weights of {model_name} are neither in the cache nor within reach; fetch model.safetensors of "
        f"{origin} elsewhere and give it by encoder.weights=FILE, or use encoder=color_gradient"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
