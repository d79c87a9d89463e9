"""LoRA on diffusers networks through peft, and the tensors that training may change.

Only thin wrappers: adapters are peft's own, so its tools keep working on our networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rasr.errors import RasrError


def add_lora(
    net: nn.Module, targets: Iterable[str], *, rank: int, alpha: float, adapter: str = "default"
) -> None:
    """Adds one trainable LoRA adapter to the named layers of `net`; freezes nothing else.

    Adapters that are already there stay active.

    Args:
        net: network whose layers get adapters, in place.
        targets: full names of `nn.Linear` / `nn.Conv2d` layers inside `net`.
        rank: rank of the update.
        alpha: the update is scaled by `alpha / rank`.
        adapter: name of the adapter.
    """
    requires_grad = {name: p.requires_grad for name, p in net.named_parameters()}
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(set(targets)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a further adapter
        inject_adapter_in_model(config, net, adapter)
    # peft leaves only the newest adapter active: the others would be there without any effect.
    for layer in lora_layers(net).values():
        layer.set_adapter(list(layer.lora_A))
    # peft freezes the whole network; what the caller had left trainable stays so.
    for name, parameter in net.named_parameters():
        if name in requires_grad:
            parameter.requires_grad_(requires_grad[name])


def merge_lora(net: nn.Module) -> None:
    """Folds every LoRA adapter of `net` into its base layer and removes it: same output, faster."""
    for layer in lora_layers(net).values():
        layer.merge(safe_merge=True)
    remove_lora(net)


def remove_lora(net: nn.Module) -> None:
    """Takes every LoRA adapter out of `net`; what was not merged is lost."""
    for name, layer in lora_layers(net).items():
        net.set_submodule(name, layer.get_base_layer())
    # diffusers refuses a later add_adapter under the same name as long as it believes one is loaded.
    if hasattr(net, "_hf_peft_config_loaded"):
        net._hf_peft_config_loaded = False
    if hasattr(net, "peft_config"):
        del net.peft_config


def lora_layers(net: nn.Module) -> dict[str, LoraLayer]:
    """The layers of `net` that carry LoRA adapters, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, LoraLayer)}


def cast_frozen(net: nn.Module, dtype: torch.dtype) -> None:
    """Stores the frozen tensors of `net` in `dtype`; trainable ones keep theirs.

    Under autocast the result is nearly the same with half the memory, and nothing is cast again at every use.
    """
    for parameter in net.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def trainable_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training may change, by name."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def trainable_state_dict(net: nn.Module) -> dict[str, Tensor]:
    """Detached CPU copies of the trainable tensors of `net`, by name."""
    return {name: p.detach().cpu().clone() for name, p in trainable_parameters(net).items()}


@torch.no_grad()
def load_trainable(net: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copies `tensors` into the trainable parameters of `net`; the key sets and shapes must match exactly.

    Args:
        net: network with trainable parameters.
        tensors: name -> tensor.
        source: file (or other origin) that error messages name.

    Raises:
        RasrError: missing, unexpected or wrongly shaped tensors, named.
    """
    parameters = trainable_parameters(net)
    check_keys(tensors, parameters, source=source)
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise RasrError(
                f"{source}: tensor {name} has shape {tuple(tensors[name].shape)}, the network wants "
                f"{tuple(parameter.shape)}; use weights made with the same backbone and rank"
            )
        parameter.copy_(tensors[name])


def check_keys(
    found: Iterable[str],
    wanted: Iterable[str],
    *,
    source: str,
    what: str = "tensor names do not match the network",
    mend: str = "use weights made for this backbone, rank and branch",
) -> None:
    """Raises a RasrError that names the missing and unexpected keys of a weight file, if there are any."""
    found, wanted = set(found), set(wanted)
    missing, unexpected = sorted(wanted - found), sorted(found - wanted)
    if missing or unexpected:
        parts = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise RasrError(f"{source}: {what}: {'; '.join(parts)}; {mend}")
