"""`python -m rasr.tools convert_osediff` as a user runs it."""

import pytest
from safetensors import safe_open

from rasr.backbones.osediff_weights import read_osediff
from rasr.image_io import content_hash
from rasr.models import make_tiny_backbone
from tests.helpers import run_tool
from tests.osediff_file import write_osediff


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    backbone = make_tiny_backbone(seed=0)
    return write_osediff(backbone.unet, backbone.vae, tmp_path_factory.mktemp("osediff") / "osediff.pkl")


def convert(source, target):
    return run_tool("convert_osediff", f"source={source}", f"target={target}")


def test_converts_and_prints_hashes_and_counts(official, tmp_path):
    target = tmp_path / "new" / "osediff.safetensors"
    done = convert(official, target)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in target.parent.iterdir()] == ["osediff.safetensors"]
    weights = read_osediff(official)
    unet = {name: tensor.numel() for name, tensor in weights.state_dict_unet.items()}
    lora = sum(count for name, count in unet.items() if "lora" in name)
    vae = sum(tensor.numel() for tensor in weights.state_dict_vae.values())
    assert done.stdout.splitlines() == [
        f"{content_hash(official)}  {official}",
        f"{content_hash(target)}  {target}",
        f"UNet LoRA: {lora:,} parameters",
        f"UNet conv_in: {sum(unet.values()) - lora:,} parameters",
        f"VAE LoRA: {vae:,} parameters",
        f"all: {sum(unet.values()) + vae:,} parameters",
    ]
    with safe_open(target, framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"unet", "vae"}  # noqa: SIM118
        assert len(file.keys()) == len(unet) + len(weights.state_dict_vae)


def test_twice_the_same_bytes(official, tmp_path):
    for name in ("a", "b"):
        assert convert(official, tmp_path / f"{name}.safetensors").returncode == 0
    assert content_hash(tmp_path / "a.safetensors") == content_hash(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("lost.pkl", "a.safetensors", "lost.pkl does not exist"),
        ("broken.pkl", "a.safetensors", "broken.pkl is damaged"),
        ("{official}", "a.pkl", "a.pkl must end in .safetensors"),
        ("{official}", "{official}", "is both source and target"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(official, tmp_path, source, target, message):
    (tmp_path / "broken.pkl").write_bytes(official.read_bytes()[:500])
    before = official.read_bytes()
    source, target = (tmp_path / name.format(official=official) for name in (source, target))
    done = convert(source, target)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pkl"]
    assert official.read_bytes() == before
