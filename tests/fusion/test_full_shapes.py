"""Correspondence fusion at SD-2.1's shapes, 512x512: parameters, operations, and what is kept."""

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from rasr.config.correspondence import CorrespondenceConfig
from rasr.fusion.base import Restoration
from rasr.fusion.correspondence import CorrespondenceFusion
from tests.helpers import REPOSITORY

BLOCKS = ((1280, 16), (1280, 32), (640, 64), (320, 64))  # channels and side of the decoder blocks' outputs


@pytest.fixture(scope="module")
def fusion():
    settings = OmegaConf.load(REPOSITORY / "conf" / "model" / "rasr_correspondence.yaml").fusion_settings
    config = CorrespondenceConfig(**OmegaConf.to_container(settings))
    return CorrespondenceFusion(4, [channels for channels, _ in BLOCKS], config).eval()


def restored(side=64):
    scale = side / 64
    features = tuple(torch.randn(1, c, int(s * scale), int(s * scale)) for c, s in BLOCKS)
    image = torch.rand(1, 3, 8 * side, 8 * side)
    return Restoration(image, image, torch.randn(1, 4, side, side), features)


def test_parameters(fusion):
    assert sum(p.numel() for p in fusion.parameters()) == 2_769_243
    assert sum(p.numel() for p in fusion.transfer.parameters()) == 319_088


@torch.inference_mode()
def test_operations_and_kept_bytes_at_512(fusion):
    """The UNet's and the VAE's passes are 5,000 GFLOP: the reference costs less than 1 % beside them."""
    state = restored()
    coarse, fine = fusion.head(state.x0, state.features)
    assert coarse.shape == (1, 128, 32, 32) and fine.shape == (1, 64, 64, 64)
    kept = {"coarse": coarse.half(), "fine": fine.half(), "image": torch.zeros(1, 3, 512, 512).byte()}
    assert sum(t.numel() * t.element_size() for t in kept.values()) < 1.6e6
    prepared = fusion.prepare(None, kept)
    with FlopCounterMode(display=False) as counter:
        fused = fusion.fuse(None, state, [prepared], 1.0)
    assert fused.sr.shape == (1, 3, 512, 512) and fused.provenance.place.shape == (1, 2, 128, 128)
    assert counter.get_total_flops() == pytest.approx(16.68e9, rel=0.01)


def test_the_experiment_composes():
    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = hydra.compose("train", ["experiment=rasr_correspondence", "data.train=x.csv", "data.val=null"])
    assert cfg.module._target_ == "rasr.training.CorrespondenceModule"
    assert cfg.model.fusion == "correspondence" and cfg.loss.weights.gan == 0
