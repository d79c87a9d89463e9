"""Kept banks: what the one-step backbone makes of a database image, computed once and read ever after.

There the source side depends on the reference alone, not on photograph, step or noise. One safetensors file
per image and setting, in float16; its name holds the image's content hash and a hash of all that the bank
depends on, so that banks of other weights or settings are never mistaken for these.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rasr.errors import RasrError
from rasr.image_io import atomic_path
from rasr.refir.bank import ReferenceBank
from rasr.refir.config import InjectionConfig
from rasr.refir.one_step import OneStepChain

_SAMPLES = 64  # values of each tensor that tell one set of weights from another


class BankStore:
    """A folder of kept banks.

    Args:
        folder: made when the first bank is kept.
        settings: all that a bank depends on besides image and prompt, as plain values.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = settings
        if self.folder.is_file():
            raise RasrError(f"method.banks={folder} is a file; give a folder")

    @classmethod
    def of_chain(
        cls, folder: str | Path, chain: OneStepChain, config: InjectionConfig, ref_size: int | None
    ) -> BankStore:
        """The banks of these weights and settings."""
        settings = {
            "weights": weights_fingerprint(chain.backbone),
            "timestep": chain.backbone.timestep,
            "position": config.position,
            "gate_site": config.gate_site,
            "ref_size": ref_size,
        }
        return cls(folder, settings)

    def get(self, key: str, prompt: str = "") -> ReferenceBank | None:
        """The bank of an image file with its text; None if it is not kept yet.

        Raises:
            RasrError: its file is damaged.
        """
        path = self.path(key, prompt)
        if not path.is_file():
            return None
        try:
            return ReferenceBank.from_state_dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise RasrError(f"{path} is damaged; delete it, it will be made again") from error

    def put(self, key: str, prompt: str, bank: ReferenceBank) -> Path:
        """Keeps a bank; its file appears only when it is complete."""
        path = self.path(key, prompt)
        metadata = {"settings": json.dumps(self.settings | {"prompt": prompt})}
        with atomic_path(path) as temporary:
            save_file(bank.to("cpu", torch.float16).state_dict(), temporary, metadata=metadata)
        return path

    def path(self, key: str, prompt: str = "") -> Path:
        """The file of that image; two levels, since folders of a million files are slow."""
        text = json.dumps(self.settings | {"prompt": prompt}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / key[:2] / f"{key}-{digest}.safetensors"


def weights_fingerprint(net: nn.Module) -> str:
    """Short hash that tells sets of weights apart: names, shapes and some values of every tensor.

    Values are compared in bf16, so that a net loaded in half precision knows the banks made in full.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().flatten()
        values = values[:: max(1, values.numel() // _SAMPLES)][:_SAMPLES].bfloat16().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
