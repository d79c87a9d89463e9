import importlib
import importlib.util
import sys

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import BicubicBaseline, FolderBaseline, InferBaseline, SpandrelBaseline, infer_baseline
from rasr.image_io import read_image, write_png
from rasr.image_ops import resize_bicubic

CPU = torch.device("cpu")
needs_spandrel = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None, reason="needs the extra eval"
)


@pytest.fixture
def lq(tmp_path):
    for name in ("a", "cat/b"):
        write_png(torch.rand(3, 8, 10), tmp_path / "lq" / f"{name}.png")
    return tmp_path / "lq"


@pytest.fixture
def compact(tmp_path):
    """A small network of an architecture that spandrel knows, x4."""
    torch.manual_seed(0)
    arch = importlib.import_module("spandrel.architectures.Compact.__arch.SRVGG")
    net = arch.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    torch.save({"params": net.state_dict()}, tmp_path / "compact.pth")
    return net.eval(), tmp_path / "compact.pth"


def test_bicubic_enlarges_every_photograph(lq, tmp_path):
    folder = BicubicBaseline(scale=3).restore_folder(lq, tmp_path / "out", CPU)
    assert folder == tmp_path / "out"
    expected = resize_bicubic(read_image(lq / "cat/b.png")[None], (24, 30))[0].clamp(0, 1)
    assert (read_image(folder / "cat/b.png") - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_what_was_made_is_kept_until_input_or_settings_change(lq, tmp_path):
    def times():
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}

    BicubicBaseline().restore_folder(lq, tmp_path / "out", CPU)
    first = times()
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write('{"input": "cut')  # an interruption
    BicubicBaseline().restore_folder(lq, tmp_path / "out", CPU)
    assert times() == first
    write_png(torch.rand(3, 8, 10), lq / "a.png")
    BicubicBaseline().restore_folder(lq, tmp_path / "out", CPU)
    assert times()["a.png"] != first["a.png"] and times()["b.png"] == first["b.png"]
    BicubicBaseline(scale=2).restore_folder(lq, tmp_path / "out", CPU)
    assert read_image(tmp_path / "out" / "cat/b.png").shape == (3, 16, 20)


def test_two_photographs_of_one_name_are_refused(lq, tmp_path):
    (lq / "a.jpg").write_bytes((lq / "a.png").read_bytes())
    with pytest.raises(RasrError, match=r"lq: several files for a; keep one of each"):
        BicubicBaseline().restore_folder(lq, tmp_path / "out", CPU)


def test_a_folder_is_taken_as_it_is(lq, tmp_path):
    assert FolderBaseline("x", str(lq)).restore_folder(None, tmp_path / "out", CPU) == lq
    with pytest.raises(RasrError, match="no such file or directory"):
        FolderBaseline("x", str(tmp_path / "none"))


@needs_spandrel
def test_spandrel_runs_an_official_weight_file(lq, tmp_path, compact):
    net, file = compact
    folder = SpandrelBaseline("Compact", str(file)).restore_folder(lq, tmp_path / "out", CPU)
    with torch.inference_mode():
        expected = net(read_image(lq / "a.png")[None])[0].clamp(0, 1)
    assert expected.std() > 0.01
    assert (read_image(folder / "a.png") - expected).abs().max() <= 0.5 / 255 + 1e-6


@needs_spandrel
def test_files_that_spandrel_cannot_load(lq, tmp_path):
    with pytest.raises(RasrError, match=r"none\.pth: no such file; give the weight file of HAT"):
        SpandrelBaseline("HAT", str(tmp_path / "none.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(RasrError, match=r"odd\.pth: spandrel cannot load it"):
        SpandrelBaseline("HAT", str(tmp_path / "odd.pth")).restore_folder(lq, tmp_path / "out", CPU)


def test_without_spandrel_the_mend_is_named(lq, tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(RasrError, match=r"install it with pip install -e '\.\[eval\]'"):
        SpandrelBaseline("HAT", str(tmp_path / "a.pth")).restore_folder(lq, tmp_path / "out", CPU)


def test_our_own_is_infer_with_the_given_keys(lq, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(infer_baseline, "infer", seen.append)
    output = tmp_path / "it's, [odd] = $name"
    arguments = {"weights": "w.safetensors", "index": None, "color_fix": "none", "prompt": "given"}
    method = InferBaseline("RASRNet", arguments | {"prompt.text": "a cat, asleep", "provenance": True})
    assert method.restore_folder(lq, output, CPU) == output
    (cfg,) = seen
    assert (cfg.input, cfg.output, cfg.device) == (str(lq), str(output), "cpu")
    assert (cfg.weights, cfg.index, cfg.color_fix) == ("w.safetensors", None, "none")
    assert cfg.prompt.text == "a cat, asleep" and cfg.provenance is True
    with pytest.raises(RasrError, match="give them by lq="):
        method.restore_folder(None, output, CPU)


def test_mistakes_name_the_row(lq, tmp_path):
    for keys, message in (({"colour": "x"}, "colour"), ({"input": str(tmp_path / "lost")}, "lost")):
        with pytest.raises(RasrError, match=f"^RASRNet: .*{message}|^infer.py .*{message}"):
            InferBaseline("RASRNet", {"weights": "w"} | keys).restore_folder(lq, tmp_path / "out", CPU)


@pytest.mark.slow
def test_our_own_checkpoint_with_and_without_reference(lq, tmp_path):
    from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
    from rasr.retrieval import ColorGradientEncoder, build_index
    from tests.helpers import wake_zero_convs

    make_tiny_backbone(seed=0).save_pretrained(tmp_path / "backbone")
    net = build_rasr_net(str(tmp_path / "backbone"))
    wake_zero_convs(net)
    save_weights(net, tmp_path / "weights")
    write_png(torch.rand(3, 32, 32), tmp_path / "database" / "r.png")
    build_index(tmp_path / "database", tmp_path / "index", ColorGradientEncoder())
    weights = str(tmp_path / "weights.safetensors")
    arguments = {"weights": weights, "index": str(tmp_path / "index")}
    with_ref = InferBaseline("with", arguments).restore_folder(lq, tmp_path / "with", CPU)
    without = InferBaseline("without", {"weights": weights}).restore_folder(lq, tmp_path / "without", CPU)
    assert read_image(with_ref / "a.png").shape == (3, 32, 40)
    assert not torch.equal(read_image(with_ref / "a.png"), read_image(without / "a.png"))


@pytest.mark.parametrize("method", [BicubicBaseline()])
def test_methods_that_restore_need_photographs(method, tmp_path):
    assert method.needs_lq
    with pytest.raises(RasrError, match="give them by lq=FOLDER"):
        method.restore_folder(None, tmp_path, CPU)
