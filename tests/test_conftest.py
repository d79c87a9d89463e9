"""The guards of the test suite itself."""

import os
import random
import socket
import socketserver
import threading

import numpy as np
import pytest
import torch


def test_remote_hosts_are_refused_by_address_and_by_name():
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"reach 192\.0\.2\.1"):
        client.connect(("192.0.2.1", 80))
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"reach 192\.0\.2\.1"):
        client.connect_ex(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match=r"reach example\.org"):
        socket.create_connection(("example.org", 80))
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_this_machine_is_reachable(tmp_path):
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        socket.create_connection(("localhost", server.server_address[1]), timeout=5).close()
        thread.join()
    name = str(tmp_path / "s")
    with (
        socketserver.UnixStreamServer(name, socketserver.BaseRequestHandler),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(name)


def test_every_test_starts_from_the_same_seeds():
    drawn = torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(0)
    assert drawn[0] == torch.rand(1).item()
    assert drawn[1] == np.random.RandomState(0).rand()
    assert drawn[2] == random.Random(0).random()


@pytest.mark.shared_data
def test_shared_data_is_a_folder(shared_data):
    assert shared_data.is_dir()


def test_compose_reads_the_shipped_configuration(compose):
    cfg = compose(["strict=false"], config_name="evaluate")
    assert cfg.strict is False
    assert list(cfg.metrics) == ["psnr", "ssim"]
