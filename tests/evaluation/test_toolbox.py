"""The metrics of pyiqa: what is there works, what is not says which file it wants."""

import importlib.util
import inspect

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import METRICS, EvaluationProtocol, evaluate_folders, toolbox
from rasr.image_io import write_png

OSEDIFF = EvaluationProtocol(variants={"maniqa": "maniqa-pipal"})
needs_pyiqa = pytest.mark.skipif(importlib.util.find_spec("pyiqa") is None, reason="needs the extra eval")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """A machine without a single weight file, nor a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(toolbox, "is_within_reach", lambda url: False)
    return tmp_path / "torch" / "hub"


@needs_pyiqa
def test_absent_weights_are_named_with_their_place(empty_cache):
    opened, unavailable = toolbox.open_metrics(["lpips", "psnr", "fid"], OSEDIFF, "cpu")
    assert list(opened) == ["psnr"]
    assert str(empty_cache / "checkpoints" / "alexnet-owt-7be5be79.pth") in unavailable["lpips"]
    assert str(empty_cache / "pyiqa" / "LPIPS_v0.1_alex-df73285e.pth") in unavailable["lpips"]
    assert "pt_inception-2015-12-05-6726825d.pth" in unavailable["fid"]


@needs_pyiqa
@pytest.mark.parametrize(
    ("variant", "file"), [("maniqa", "ckpt_koniq10k.pt"), ("maniqa-pipal", "MANIQA_PIPAL")]
)
def test_the_protocol_chooses_the_variant(variant, file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    _, unavailable = toolbox.open_metrics(["maniqa"], EvaluationProtocol(variants={"maniqa": variant}), "cpu")
    assert file in unavailable["maniqa"]


def test_without_pyiqa_the_own_metrics_run(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(toolbox, "find_spec", lambda name: None)
    for folder in ("sr", "gt"):
        write_png(torch.rand(3, 16, 16), tmp_path / folder / "a.png")
    report = evaluate_folders(tmp_path / "sr", tmp_path / "gt", metrics=["psnr", "niqe"])
    assert list(report["mean"]) == ["psnr"]
    assert report["unavailable"] == {"niqe": "it needs pyiqa; install it with pip install -e '.[eval]'"}
    assert "niqe is unavailable" in caplog.text
    with pytest.raises(RasrError, match="none of the metrics can be had: niqe: it needs pyiqa"):
        evaluate_folders(tmp_path / "sr", tmp_path / "gt", metrics=["niqe"])


@needs_pyiqa
def test_every_wanted_file_is_one_that_pyiqa_loads():
    """The list must not go stale when pyiqa moves on."""
    import pyiqa.archs.clip_model
    import pyiqa.archs.dists_arch
    import pyiqa.archs.inception
    import pyiqa.archs.lpips_arch
    import pyiqa.archs.maniqa_arch
    import pyiqa.archs.musiq_arch

    archs = pyiqa.archs
    modules = [
        archs.clip_model,
        archs.dists_arch,
        archs.lpips_arch,
        archs.maniqa_arch,
        archs.musiq_arch,
        archs.inception,
    ]
    source = "".join(inspect.getsource(module) for module in modules)
    wanted = {url.rsplit("/", 1)[-1] for urls in toolbox.FILES.values() for url in urls}
    own = {
        name for name in wanted if not name.startswith(("alexnet", "vgg16", "vit_"))
    }  # others are torchvision's, timm's
    assert {name for name in own if name not in source} == set()
    assert METRICS.keys() - {"psnr", "ssim", "kid"} <= toolbox.FILES.keys()


@needs_pyiqa
def test_niqe_needs_no_download_and_tells_smooth_from_sharp(tmp_path):
    opened, unavailable = toolbox.open_metrics(["niqe"], OSEDIFF, "cpu")
    assert unavailable == {}
    sharp = torch.rand(1, 3, 200, 200)
    blurred = torch.nn.functional.avg_pool2d(sharp, 9, stride=1, padding=4)
    values = [float(opened["niqe"].measure(image, None)) for image in (sharp, blurred)]
    assert values[0] != pytest.approx(values[1], abs=0.5)
    with pytest.raises(RasrError, match="niqe cannot measure 20x10"):
        opened["niqe"].measure(torch.rand(1, 3, 10, 20), None)


@needs_pyiqa
@pytest.mark.parametrize(("name", "best"), [("fsim", 1.0), ("gmsd", 0.0), ("vif", 1.0)])
def test_formulas_need_no_download_and_know_their_direction(name, best):
    opened, unavailable = toolbox.open_metrics([name], OSEDIFF, "cpu")
    assert unavailable == {}
    gt = torch.nn.functional.interpolate(torch.rand(2, 3, 32, 32), scale_factor=4, mode="bicubic").clamp(0, 1)
    noise = torch.randn_like(gt)
    same, near, far = (
        opened[name].measure((gt + strength * noise).clamp(0, 1), gt) for strength in (0, 0.05, 0.2)
    )
    assert same.tolist() == pytest.approx([best, best], abs=1e-4)
    sign = -1 if METRICS[name].lower_better else 1
    assert (sign * same > sign * near).all() and (sign * near > sign * far).all()
    alone = opened[name].measure((gt[1:] + 0.2 * noise[1:]).clamp(0, 1), gt[1:])
    assert alone.item() == pytest.approx(far[1].item(), rel=1e-4)


def test_pickles_are_refused_while_pyiqa_loads(tmp_path):
    torch.save({"a": RasrError("any class")}, tmp_path / "evil.pth")
    with toolbox._no_unpickling(), pytest.raises(Exception, match=r"[Ww]eights.only"):
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert torch.load(tmp_path / "evil.pth", weights_only=False)  # outside it is the caller's business


def test_random_metrics_are_seeded_and_leave_the_state_alone():
    def net(sr):
        return torch.rand(len(sr))

    image = torch.rand(1, 3, 8, 8)
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        values.append(toolbox._run(net, False, "maniqa-pipal", image, None))
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(*values)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"color": "lab"}, "protocol.color='lab' is unknown; give one of ycbcr, yiq, rgb"),
        ({"crop_border": -1}, "protocol.crop_border=-1 is negative"),
        ({"variants": {"lpip": "x"}}, "unknown metric in protocol.variants: lpip"),
    ],
)
def test_wrong_protocols_are_refused(options, text):
    with pytest.raises(RasrError, match=text):
        EvaluationProtocol(**options)


def test_the_digest_follows_the_meaning_not_the_name():
    digest = EvaluationProtocol().describe()["digest"]
    assert EvaluationProtocol(name="mine").describe()["digest"] == digest
    assert EvaluationProtocol(crop_border=4).describe()["digest"] != digest
    assert EvaluationProtocol(variants={"maniqa": "maniqa"}).describe()["digest"] != digest
