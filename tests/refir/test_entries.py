"""infer.py method=refir, and the tools keep and inspect, as a user runs them."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from hydra.utils import instantiate

from rasr.image_io import content_hash, read_image, write_png
from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
from rasr.refir import PRESETS
from rasr.retrieval import ColorGradientEncoder, build_index
from tests.helpers import run_entry, run_tool, wake_zero_convs
from tests.refir.conftest import make_multi_step
from tests.refir.test_multi_step import save
from tests.refir.unets import wake


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Awake weights with and without a branch, a multi-step restorer, a database and photographs."""
    folder = tmp_path_factory.mktemp("refir")
    backbone = make_tiny_backbone(seed=0)
    wake(backbone.unet, seed=1)
    backbone.save_pretrained(folder / "backbone")
    net = build_rasr_net(str(folder / "backbone"))
    wake_zero_convs(net)
    save_weights(net, folder / "weights")
    save(make_multi_step(), folder / "multi")
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b", "c"):
        colour = torch.rand(3, 1, 1, generator=generator)
        picture = (colour + 0.3 * torch.rand(3, 40, 48, generator=generator)).clamp(0, 1)
        write_png(picture, folder / "database" / f"{name}.png")
    (folder / "database" / "a.txt").write_text("a wall\n")
    build_index(folder / "database", folder / "index", ColorGradientEncoder())
    lq = torch.rand(3, 9, 12, generator=generator)
    write_png(lq, folder / "input" / "photo.png")
    write_png(torch.rand(3, 36, 48, generator=generator), folder / "gt" / "photo.png")
    return folder


def infer(folder, **keys):
    """Content hash of the picture, and its line in results.jsonl."""
    keys = {"weights": folder / "backbone", "index": folder / "index", "color_fix": "none"} | keys
    keys = {"input": folder / "input", "output": folder / "output", "device": "cpu"} | keys
    shutil.rmtree(folder / "output", ignore_errors=True)
    done = run_entry("infer.py", *(f"{k}={v}" for k, v in keys.items() if v is not None))
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "output" / "results.jsonl").read_text())
    return content_hash(folder / "output" / "photo.png"), record


def test_the_same_command_runs_both_systems(folder):
    weights = folder / "weights.safetensors"
    pictures = {
        "without": infer(folder, index=None),
        "rasr": infer(folder, weights=weights),
        "refir": infer(folder, method="refir"),
        "both": infer(folder, method="refir", weights=weights, **{"method.use_branch": "true"}),
    }
    assert len({picture for picture, _ in pictures.values()}) == 4
    # Both found the same reference with the same score and joined the same prompts.
    for key in ("reference", "score", "prompt"):
        assert len({pictures[name][1][key] for name in ("rasr", "refir", "both")}) == 1


RUNS = {
    "default": {},
    "paper": {"refir": "supir"},
    "scale": {"refir.scale": 0.9},
    "layer_schedule": {"refir.layer_schedule": "cosine"},
    "gate_site": {"refir.gate_site": "none"},
    "align": {"refir.align": "none"},
    "position": {"refir.position": "both"},
    "replace": {"refir.mode": "replace"},
    "canvas": {"refir.canvas": "shared"},
    "references": {"references": 3},
    "temperature": {"references": 3, "temperature": 0.1},
    "ref_size": {"method.ref_size": 32},
    "none": {"reference_kind": "none"},
    "self": {"reference_kind": "self"},
    "random": {"reference_kind": "random"},
    "gt": {"index": None, "reference": "gt"},
}


@pytest.mark.slow
def test_every_key_matters(folder):
    pictures = {}
    for name, keys in RUNS.items():
        keys = {k: folder / "gt" if v == "gt" else v for k, v in keys.items()}
        pictures[name], record = infer(folder, method="refir", **keys)
        if name in ("references", "temperature"):
            shares = list(record["references"].values())
            assert sum(shares) == pytest.approx(1, abs=1e-4)
            assert (max(shares) > 0.5) == (name == "temperature")
        if name == "random":
            assert record["reference"] in {"a.png", "b.png", "c.png"}
    # With three entries a random one may be the best one.
    pictures.pop("random")
    assert len(set(pictures.values())) == len(pictures), pictures


@pytest.mark.slow
def test_without_reference_or_strength_the_model_works_alone(folder):
    without, _ = infer(folder, index=None)
    assert infer(folder, method="refir", index=None)[0] == without
    assert infer(folder, method="refir", **{"refir.scale": 0})[0] == without
    # A branch's weights sit over the same backbone: unless it is asked for they are that backbone.
    weights = folder / "weights.safetensors"
    assert infer(folder, method="refir", weights=weights)[0] == infer(folder, method="refir")[0]
    picture, record = infer(folder, method="refir", min_score=1.0)
    assert picture == without and record["reference"] is None


def test_kept_banks(folder, tmp_path):
    keys = {"index": folder / "index", "weights": folder / "backbone", "kept": tmp_path / "banks"}
    command = ["keep", *(f"{k}={v}" for k, v in keys.items()), "device=cpu"]
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr
    assert "3 references kept, 0 known;" in done.stdout + done.stderr
    files = list((tmp_path / "banks").rglob("*.safetensors"))
    assert len(files) == 3
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    assert f"{megabytes:.1f} MB in all" in done.stdout + done.stderr
    assert "0 references kept, 3 known;" in run_tool(*command).stdout
    _, record = infer(folder, method="refir", kept=tmp_path / "banks")
    assert record["kept"] is True
    assert len(list((tmp_path / "banks").rglob("*.safetensors"))) == 3
    sr = read_image(folder / "output" / "photo.png")
    _, record = infer(folder, method="refir")
    assert record["kept"] is False
    torch.testing.assert_close(sr, read_image(folder / "output" / "photo.png"), atol=2 / 255, rtol=0)


def test_multi_step(folder):
    keys = {"method": "refir_multistep", "weights": folder / "multi", "refir": "paper"}
    keys["method.chain.n_steps"] = 2
    assert infer(folder, **keys)[1]["reference"] is not None


@pytest.mark.slow
def test_every_key_of_a_multi_step_restorer_matters(folder):
    keys = {"method": "refir_multistep", "weights": folder / "multi", "refir": "paper"}
    keys["method.chain.n_steps"] = 3
    with_reference = infer(folder, **keys)[0]
    assert with_reference == infer(folder, **keys)[0]
    others = [
        infer(folder, **keys, index=None)[0],
        infer(folder, **keys, **{"method.seed": 1})[0],
        infer(folder, **keys, **{"method.chain.guidance_scale": 1})[0],
        infer(folder, **keys | {"refir": "seesr"})[0],
        infer(folder, **keys, **{"refir.active": 1.0})[0],
    ]
    assert len({with_reference, *others}) == 6


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "rasr"}, "add method=refir"),
        ({"weights": "multi"}, "add method=refir_multistep"),
        ({"weights": "multi", "method": "rasr"}, "add method=refir_multistep"),
        ({"references": 2, "method": "rasr"}, "without a reference fusion"),
        ({"method.use_branch": "true"}, "has no trained branch"),
        ({"references": 2, "refir": "seesr"}, "refir.canvas=shared takes one reference"),
        ({"min_score": "x"}, "min_score=x is not a finite number"),
        ({"conditioning_scale": "x"}, "conditioning_scale=x is not a finite number"),
        ({"latents": "x"}, "latents= is called kept= now"),
        ({"method.banks": "x"}, "method.banks= is called kept= now"),
        ({"reference_kind": "best"}, "reference_kind='best' is unknown"),
        ({"reference_kind": "random", "index": None}, "give index="),
        ({"refir.mode": "swap"}, "refir.mode='swap'"),
        ({"kept": "x", "refir.canvas": "shared"}, "need a one-step model and refir.canvas=own"),
        ({"weights": "backbone", "method": "refir_multistep"}, "controlnet missing"),
    ],
)
def test_mistakes_are_one_line(folder, keys, message):
    keys = {"weights": "backbone", "method": "refir", "index": folder / "index"} | keys
    keys["weights"] = folder / keys["weights"]
    keys |= {"input": folder / "input", "output": folder / "nothing", "device": "cpu"}
    done = run_entry("infer.py", *(f"{k}={v}" for k, v in keys.items() if v is not None))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "nothing").exists()


def seen(folder, path, *extra):
    keys = [f"input={folder / 'input' / 'photo.png'}", f"reference={folder / 'database' / 'a.png'}"]
    keys += [f"weights={folder / 'backbone'}", f"output={path}", "device=cpu"]
    done = run_tool("inspect", *keys, *extra)
    assert done.returncode == 0, done.stderr
    return read_image(path)


def test_a_picture_of_features_and_gates(folder, tmp_path):
    # One row of photographs and one per decoder block with attention, three cells each.
    height, width = seen(folder, tmp_path / "seen.png").shape[-2:]
    assert height > 4 * 256 and width > 3 * 256


@pytest.mark.slow
def test_the_picture_follows_the_settings(folder, tmp_path):
    pictures = {}
    for name, extra in {
        "default": (),
        "supir": ("refir=supir",),
        "no gate": ("refir.gate_site=none",),
        "multi": ("method=refir_multistep", f"weights={folder / 'multi'}", "method.chain.n_steps=2"),
    }.items():
        pictures[name] = seen(folder, tmp_path / "seen.png", *extra)
    assert pictures["default"].shape == pictures["multi"].shape
    assert not torch.equal(pictures["default"], pictures["supir"])
    assert (pictures["no gate"][:, 400:, 600:] != 1).sum() < (pictures["default"][:, 400:, 600:] != 1).sum()


def test_presets_are_the_same_in_python_and_in_conf(compose):
    for name, preset in PRESETS.items():
        cfg = compose([f"refir={name}"], config_name="infer")
        assert asdict(instantiate(cfg.refir)) == asdict(preset)


def test_ablations_sweep_what_their_tables_vary(repository):
    import yaml

    swept = {}
    for path in sorted((repository / "conf" / "experiment").glob("refir_*.yaml")):
        experiment = yaml.safe_load(path.read_text())
        params = experiment["hydra"]["sweeper"]["params"]
        swept[path.stem] = set(params)
        for key in params:  # every run writes where its own settings say
            assert key in experiment["output"] or f"${{{key}._target_}}" in experiment["output"]
    assert swept == {
        "refir_components": {"refir.gate_site", "refir.align"},
        "refir_positions": {"refir.position"},
        "refir_reference_kinds": {"reference_kind"},
        "refir_fallbacks": {"fallback"},
        "refir_references": {"references"},
        "refir_designs": {"refir.mode"},
        "refir_scale": {"refir.scale"},
    }


@pytest.mark.slow
def test_an_ablation_runs(folder, tmp_path):
    keys = {"input": folder / "input", "weights": folder / "backbone", "index": folder / "index"}
    done = run_entry(
        "infer.py",
        "experiment=refir_designs",
        *(f"{k}={v}" for k, v in keys.items()),
        "device=cpu",
        f"output={tmp_path}/${{refir.mode}}",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    pictures = {
        name: content_hash(tmp_path / name / "photo.png") for name in ("separate", "replace", "concat")
    }
    assert len(set(pictures.values())) == 3
