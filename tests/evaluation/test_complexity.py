import importlib
import importlib.util

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import ModelComplexity, SpandrelComplexity, format_complexity
from rasr.evaluation.complexity import measure_run

CPU = torch.device("cpu")


def test_macs_of_a_convolution_are_counted_by_hand():
    net = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    calls = []

    def run():
        calls.append(None)
        net(torch.zeros(1, 3, 10, 12))

    figures = measure_run(run, 3, CPU)
    assert figures["gmacs"] == pytest.approx(3 * 5 * 9 * 10 * 12 / 1e9)
    assert len(calls) == 4  # one to warm up
    assert figures["seconds"] > 0 and 0.01 < figures["memory"] < 200
    with pytest.raises(RasrError, match="repeats=0 times nothing"):
        measure_run(run, 0, CPU)


def test_ours_with_and_without_reference(tmp_path):
    from rasr.backbones.lora import trainable_parameters
    from rasr.models import build_rasr_net, make_tiny_backbone, save_weights

    make_tiny_backbone(seed=0).save_pretrained(tmp_path / "backbone")
    net = build_rasr_net(str(tmp_path / "backbone"))
    save_weights(net, tmp_path / "weights")
    figures = ModelComplexity(str(tmp_path / "weights.safetensors")).measure(32, 1, CPU)
    trainable = sum(p.numel() for p in trainable_parameters(net).values())
    assert figures["trainable_parameters"] == pytest.approx(trainable / 1e6)
    assert figures["parameters"] == pytest.approx(sum(p.numel() for p in net.parameters()) / 1e6)
    assert figures["with_reference"]["gmacs"] > figures["without_reference"]["gmacs"] > 0
    assert figures["seconds"] == figures["with_reference"]["seconds"]
    assert "retrieval" not in figures
    lines = format_complexity(figures, {"trainable_parameters": 12.8, "with_reference.seconds": 0.15})
    assert lines[0].startswith("trainable parameters") and lines[0].endswith("M   (paper: 12.8)")
    assert any(line.startswith("with reference, seconds") and "(paper: 0.15)" in line for line in lines)
    with pytest.raises(RasrError, match="no index here"):
        ModelComplexity(str(tmp_path / "backbone"), index=str(tmp_path / "none")).measure(64, 1, CPU)


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="needs the extra eval")
def test_a_network_of_spandrel(tmp_path):
    arch = importlib.import_module("spandrel.architectures.Compact.__arch.SRVGG")
    net = arch.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    figures = SpandrelComplexity(str(tmp_path / "net.pth")).measure(64, 1, CPU)
    assert figures["parameters"] == pytest.approx(sum(p.numel() for p in net.parameters()) / 1e6)
    weights = [p.numel() for name, p in net.named_parameters() if p.ndim == 4]
    assert figures["gmacs"] == pytest.approx(sum(weights) * 16 * 16 / 1e9)
    assert [line.split()[0] for line in format_complexity(figures, {})] == [
        "trainable",
        "parameters",
        "gmacs",
        "seconds",
        "memory",
    ]
    with pytest.raises(RasrError, match="no such file"):
        SpandrelComplexity(str(tmp_path / "none.pth"))
