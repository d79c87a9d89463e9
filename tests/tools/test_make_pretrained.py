"""`python -m rasr.tools make_pretrained` as a user runs it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rasr.models import build_rasr_net, load_rasr_net, make_tiny_backbone, save_weights
from tests.helpers import run_tool, wake_zero_convs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """What train.py leaves: a backbone, and the weights of a branch over it."""
    folder = tmp_path_factory.mktemp("trained")
    make_tiny_backbone(seed=0).save_pretrained(folder / "backbone")
    net = build_rasr_net(str(folder / "backbone"))
    wake_zero_convs(net)
    return save_weights(net, folder / "weights")


def make(weights, output, *keys):
    """Runs the command; several weights as a tuple."""
    files = f"[{','.join(map(str, weights))}]" if isinstance(weights, tuple) else weights
    return run_tool("make_pretrained", f"weights={files}", f"output={output}", *keys)


def test_makes_a_folder_that_restores_the_same(trained, tmp_path):
    output = tmp_path / "new" / "mine"
    done = make(trained, output, "dtype=float32")
    assert done.returncode == 0, done.stderr
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    assert done.stdout.splitlines() == [
        f"{output}: {size / 1e6:.1f} MB; its model card: {output / 'README.md'}"
    ]
    lq_up, ref = torch.rand(2, 1, 3, 64, 64)
    assert torch.equal(load_rasr_net(output)(lq_up, ref), load_rasr_net(trained)(lq_up, ref))
    again = make(trained, output, "dtype=float32")
    assert again.stdout.strip().endswith("README.md (it was there before: see that it still fits)")
    below = make(trained, output / "README.md" / "x")
    assert below.returncode == 2 and "README.md is a file" in below.stderr


def test_half_precision_by_default_and_another_backbone(trained, tmp_path):
    make_tiny_backbone(seed=4).save_pretrained(tmp_path / "other")
    assert make(trained, tmp_path / "mine", f"backbone={tmp_path / 'other'}").returncode == 0
    name = "unet/diffusion_pytorch_model.safetensors"
    tensors, expected = load_file(tmp_path / "mine" / name), load_file(tmp_path / "other" / name)
    assert all(torch.equal(tensors[key], expected[key].half()) for key in expected)


def test_what_is_no_hub_id_is_refused_first(trained, tmp_path):
    done = make(trained, tmp_path / "mine", "push_to_hub=owner/group/mine")
    assert done.returncode == 2 and "owner/group/mine' is no hub id; give owner/name" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_publishes_the_folder_as_it_is(trained, tmp_path, monkeypatch):
    sent = {}

    def upload(folder, repo_id, *, private):
        sent.update(folder=folder, repo_id=repo_id, private=private)
        return "https://huggingface.co/owner/mine/commit/1"

    monkeypatch.setattr("rasr.tools.make_pretrained.upload_folder", upload)
    done = make(trained, tmp_path / "mine", "push_to_hub=owner/mine", "private=true")
    assert done.returncode == 0, done.stderr
    assert sent == {"folder": tmp_path / "mine", "repo_id": "owner/mine", "private": True}
    assert done.stdout.splitlines()[-1] == "https://huggingface.co/owner/mine/commit/1"
    make(trained, tmp_path / "mine", "push_to_hub=owner/mine")
    assert sent["private"] is None


def test_mistakes_are_one_line_and_write_nothing(trained, tmp_path):
    for weights, message in (("lost.safetensors", "lost.safetensors does not exist"), ("{}", "is a file")):
        output = trained if weights == "{}" else tmp_path / "mine"
        done = make(weights.format(trained), output)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    for keys, message in (
        ("dtype=int8", "dtype='int8' is unknown"),
        ("weights=[]", "no weights"),
    ):
        done = make(trained, tmp_path / "mine", keys)
        assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_two_fusions_over_one_backbone_in_one_folder(trained, tmp_path):
    backbone = str(trained.parent / "backbone")
    settings = {"head_width": 16, "transfer_width": 16}
    other = build_rasr_net(backbone, fusion="correspondence", fusion_settings=settings)
    other.fusion.transfer.alpha.data.fill_(0.5)
    file = save_weights(other, tmp_path / "correspondence")
    output = tmp_path / "both"
    done = make((trained, file), output, "dtype=float32")
    assert done.returncode == 0, done.stderr
    lq_up, ref = torch.rand(2, 1, 3, 64, 64)
    for fusion, weights in ((None, file), ("correspondence", file), ("residual", trained)):
        assert torch.equal(
            load_rasr_net(output, fusion=fusion)(lq_up, ref), load_rasr_net(weights)(lq_up, ref)
        )
    for second, message in (
        (trained, "holds a second fusion residual"),
        (trained.parent / "backbone", "holds no fusion"),
    ):
        done = make((trained, second), tmp_path / "x")
        assert done.returncode == 2 and message in done.stderr
    make_tiny_backbone(seed=4).save_pretrained(tmp_path / "foreign")
    foreign = build_rasr_net(str(tmp_path / "foreign"), fusion="correspondence", fusion_settings=settings)
    file = save_weights(foreign, tmp_path / "foreign_weights")
    done = make((trained, file), tmp_path / "x")
    assert done.returncode == 2 and "is over another backbone" in done.stderr
