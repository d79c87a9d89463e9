"""Weights of others: files are read without running them, downloads are quick to fail."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from rasr import pretrained
from rasr.errors import RasrError


class _Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a weights file was run')",))


def test_read_tensors_reads_both_formats(tmp_path):
    tensors = {"a": torch.rand(2, 3), "b": torch.arange(4)}
    save_file(tensors, tmp_path / "t.safetensors")
    torch.save(tensors, tmp_path / "t.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)  # as torchvision's files
    for name in ("t.safetensors", "t.pth", "old.pth"):
        found = pretrained.read_tensors(tmp_path / name, key="some.key")
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_read_tensors_refuses_what_is_none_in_one_line(tmp_path):
    torch.save({"x": _Malicious()}, tmp_path / "bad.pth")
    torch.save({"x": 1}, tmp_path / "plain.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk" * 100)
    for name in ("bad.pth", "plain.pth", "list.pth", "junk.pth", "junk.safetensors", "absent.pth"):
        with pytest.raises(RasrError, match=rf"{name}.*") as error:
            pretrained.read_tensors(tmp_path / name, key="some.key")
        assert "\n" not in str(error.value) and "some.key" in str(error.value)


def test_download_is_kept_and_checked(tmp_path, monkeypatch):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pretrained, "is_within_reach", lambda url: True)
    for name, is_good in ((f"net-{digest}.pth", True), ("net-00000000.pth", False)):
        (tmp_path / "server" / name).write_bytes(content)
        url = (tmp_path / "server" / name).as_uri()
        place = tmp_path / "home" / "hub" / "checkpoints" / name
        if is_good:
            assert pretrained.fetch_torch_file(url, model="Net", key="some.key") == place
            (tmp_path / "server" / name).unlink()
            assert pretrained.fetch_torch_file(url, model="Net", key="some.key").read_bytes() == content
        else:
            with pytest.raises(RasrError, match=r"some\.key=FILE.*invalid hash") as error:
                pretrained.fetch_torch_file(url, model="Net", key="some.key")
            assert "\n" not in str(error.value) and not place.exists()


def test_unknown_timm_model_is_named():
    with pytest.raises(RasrError, match="no such model: vit_of_nobody"):
        pretrained.load_timm_model("vit_of_nobody", key="some.key")


def test_absent_timm_weights_name_key_and_alternative(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for alternative, end in (("", "=FILE"), ("do without", "=FILE, or do without")):
        with pytest.raises(RasrError, match=r"timm/vit_base_patch16_224\.dino.*some\.key=FILE") as error:
            pretrained.load_timm_model("vit_base_patch16_224.dino", key="some.key", alternative=alternative)
        assert str(error.value).endswith(end)
