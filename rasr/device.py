"""Which device a command computes on: the one place that decides."""

import torch

from rasr.errors import RasrError


def resolve_device(device: str) -> torch.device:
    """ "auto" -> CUDA, else MPS, else CPU; any other name is taken as it is.

    Raises:
        RasrError: no such device, or none of its kind here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise RasrError(f"device={device!r} is unknown; give auto, cpu, cuda or mps") from error
    is_here = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if not is_here.get(resolved.type, lambda: True)():
        kind = resolved.type.upper()
        raise RasrError(f"device={device} but no {kind} device is visible; give device=auto or device=cpu")
    return resolved
