"""What every test gets: fixed seeds, no network, the shipped configuration, the shared photographs if any."""

import functools
import gc
import ipaddress
import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import DictConfig

import rasr.config  # noqa: F401 - for tests that compose by Hydra's own functions
from rasr.pretrained import is_within_reach

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("RASR_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several at once: with more threads than one each they would wait for one another; commands inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    # A million objects of imported libraries, which every full collection would walk through again.
    gc.collect()
    gc.freeze()


@functools.cache
def _is_hub_within_reach() -> bool:
    return is_within_reach("https://huggingface.co")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "gpu" in item.keywords and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if "network" in item.keywords and "QDRANT_URL" not in os.environ and not _is_hub_within_reach():
        pytest.skip("the hub is out of reach, and QDRANT_URL names no server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED_DATA.is_dir():
        return
    skip = pytest.mark.skip(reason=f"no shared photographs at {SHARED_DATA}; set RASR_SHARED_DATA")
    for item in items:
        if "shared_data" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third-party code still draws from it
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hydra prints its tracebacks under a debugger, for which it takes coverage.
    monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test reach this machine only, unless it is marked `network`."""
    if "network" in request.keywords:
        return
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address):
        _refuse_remote(self.family, address[0])
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address):
        _refuse_remote(self.family, address[0])
        return connect_ex(self, address)

    def guarded_getaddrinfo(host, *args, **kwargs):
        _refuse_remote(socket.AF_INET, host)
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
    # Commands started by a test have sockets of their own: tell the libraries that would use them.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")


def _refuse_remote(family: int, host: str | bytes | int | None) -> None:
    if family not in (socket.AF_INET, socket.AF_INET6) or not host:
        return
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in ("localhost", socket.gethostname(), socket.getfqdn()):
        return
    try:
        local = ipaddress.ip_address(name).is_loopback or name == "0.0.0.0"
    except ValueError:  # a name that is not ours
        local = False
    if not local:
        # Not an OSError: libraries catch those and retry or go on without.
        raise RuntimeError(f"this test tried to reach {name}; mark it `network` or take the call away")


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def shared_data() -> Path:
    """The folder of shared photographs; mark the test `shared_data`, it is skipped where they are absent."""
    return SHARED_DATA


@pytest.fixture
def compose() -> Iterator[Callable[..., DictConfig]]:
    """Compose the shipped configuration: `compose(["model=tiny"], config_name="train")`."""

    def compose_real(overrides: Sequence[str] = (), config_name: str = "train", **kwargs) -> DictConfig:
        return hydra.compose(config_name=config_name, overrides=list(overrides), **kwargs)

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(REPOSITORY / "conf")):
        yield compose_real
