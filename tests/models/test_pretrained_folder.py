"""Nets as folders: what is in them, exact loading, the hub, clear errors."""

import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rasr.backbones.lora import lora_layers, trainable_parameters
from rasr.errors import RasrError
from rasr.models import OneStepBackbone, RASRNet, build_rasr_net, load_rasr_net, make_tiny_backbone
from rasr.models import finding as module
from tests.helpers import wake_zero_convs
from tests.osediff_file import write_osediff

PARTS = {
    "model_index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
}
BRANCH = "reference_branch.safetensors"


def make_net(seed: int = 0) -> RASRNet:
    net = build_rasr_net(make_tiny_backbone(seed), rank=2, text_blocks=(2, 3)).eval()
    wake_zero_convs(net)
    return net


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory) -> Path:
    return make_net().save_pretrained(tmp_path_factory.mktemp("pretrained") / "mine")


@pytest.fixture
def folder(shared_folder, tmp_path) -> Path:
    """A saved net that the test may change."""
    return Path(shutil.copytree(shared_folder, tmp_path / "mine"))


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """Neither a hub nor anything that was fetched from it before."""
    monkeypatch.setattr("rasr.pretrained.is_within_reach", lambda url: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def tensors(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if name.endswith(".safetensors")}


def test_a_folder_is_a_diffusers_directory_a_branch_and_a_card(shared_folder):
    assert files(shared_folder) == PARTS | {BRANCH, "README.md"}
    for name in tensors(shared_folder):
        assert {tensor.dtype for tensor in load_file(shared_folder / name).values()} == {torch.float16}, name
    names = {name.replace("fusion.", "branch.", 1) for name in trainable_parameters(make_net())}
    assert set(load_file(shared_folder / BRANCH)) == names
    card = ModelCard.load(shared_folder / "README.md")
    assert card.data.library_name == "rasr" and card.data.pipeline_tag == "image-to-image"
    assert 'RASRNet.from_pretrained("mine")' in card.text and "at 4 times their size" in card.text


def test_loaded_and_saved_again_every_tensor_is_the_same(shared_folder, images, tmp_path):
    net = RASRNet.from_pretrained(shared_folder)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert net.config == replace(make_net().config, backbone=str(shared_folder), timestep=999)
    again = net.save_pretrained(tmp_path / "again")
    assert tensors(again) == tensors(shared_folder)
    for name in ("vae/config.json", "unet/config.json", "model_index.json"):
        assert (again / name).read_text() == (shared_folder / name).read_text()
    sr = net(images["lq_up"], images["ref"])
    assert torch.equal(RASRNet.from_pretrained(again)(images["lq_up"], images["ref"]), sr)
    # Nothing but rounding to half precision lies between the net in memory and the one on disk.
    expected = make_net()(images["lq_up"], images["ref"])
    assert not torch.equal(sr, expected)
    torch.testing.assert_close(sr, expected, atol=5e-3, rtol=0)


def test_the_time_step_of_a_backbone_that_was_built_before_is_kept(shared_folder, tmp_path):
    backbone = OneStepBackbone.from_pretrained(str(shared_folder), timestep=700)
    folder = build_rasr_net(backbone).save_pretrained(tmp_path / "other")
    assert RASRNet.from_pretrained(folder).backbone.timestep == 700


def test_full_precision_on_request(images, tmp_path):
    net = make_net()
    folder = net.save_pretrained(tmp_path / "full", dtype=torch.float32)
    again = RASRNet.from_pretrained(folder)
    assert torch.equal(again(images["lq_up"], images["ref"]), net(images["lq_up"], images["ref"]))


def test_half_precision_in_memory_on_request(shared_folder, images):
    net = RASRNet.from_pretrained(shared_folder, torch_dtype=torch.bfloat16)
    assert net.backbone.unet.dtype == net.backbone.vae.dtype == torch.bfloat16
    assert {p.dtype for p in trainable_parameters(net).values()} == {torch.float32}
    sr = net(images["lq_up"], images["ref"])
    full = RASRNet.from_pretrained(shared_folder)(images["lq_up"], images["ref"])
    assert 0 < (sr - full).abs().max() < 0.1


def test_saving_leaves_the_net_alone(tmp_path):
    net = make_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.save_pretrained(tmp_path / "mine")
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].dtype == t.dtype and torch.equal(after[name], t) for name, t in before.items())
    assert trainable_parameters(net)


def test_merged_or_not(shared_folder, images, tmp_path):
    net, merged = (RASRNet.from_pretrained(shared_folder, merge=merge) for merge in (False, True))
    assert lora_layers(net) and not lora_layers(merged)
    sr = net(images["lq_up"], images["ref"])
    torch.testing.assert_close(merged(images["lq_up"], images["ref"]), sr, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="load it with merge=False"):
        merged.save_pretrained(tmp_path / "merged")
    with pytest.raises(ValueError, match="nothing of this net's fusion is trainable"):
        net.requires_grad_(False).save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_folder_may_be_moved_and_tells_nothing_of_where_it_was(folder, images, tmp_path):
    net = RASRNet.from_pretrained(folder)
    moved = net.save_pretrained(tmp_path / "saved again").rename(tmp_path / "elsewhere")
    shutil.rmtree(folder)
    again = load_rasr_net(moved, merge=False)
    assert torch.equal(again(images["lq_up"], images["ref"]), net(images["lq_up"], images["ref"]))
    for name in files(moved):
        assert str(tmp_path).encode() not in (moved / name).read_bytes(), name
    with safe_open(moved / BRANCH, framework="pt") as file:
        assert '"backbone": ""' in file.metadata()["rasr_net_config"]


def test_a_backbone_alone_is_a_folder_too(folder, images):
    net = RASRNet(make_tiny_backbone(seed=3))
    net.save_pretrained(folder)  # over another net, whose branch must not stay
    assert files(folder) == PARTS | {"README.md"}
    again = RASRNet.from_pretrained(folder)
    assert again.fusion is None
    torch.testing.assert_close(again(images["lq_up"]), net(images["lq_up"]), atol=5e-3, rtol=0)
    with pytest.raises(RasrError, match="mine is a backbone without a fusion; leave out backbone=other"):
        load_rasr_net(folder, backbone="other")


def test_another_backbone_and_osediff_weights_under_the_branch(folder, images, tmp_path):
    make_tiny_backbone(seed=5).save_pretrained(tmp_path / "other")
    backbone = make_tiny_backbone(seed=0)
    osediff = write_osediff(backbone.unet, backbone.vae, tmp_path / "osediff.pkl")
    pictures = [
        load_rasr_net(folder, **keys)(images["lq_up"], images["ref"])
        for keys in ({}, {"backbone": str(tmp_path / "other")}, {"osediff_weights": osediff})
    ]
    assert not any(torch.equal(a, b) for a, b in ((pictures[0], pictures[1]), (pictures[0], pictures[2])))


def test_osediff_weights_cannot_share_a_folder_with_a_branch(folder, tmp_path):
    backbone = make_tiny_backbone(seed=0)
    osediff = write_osediff(backbone.unet, backbone.vae, tmp_path / "osediff.pkl")
    net = load_rasr_net(folder, osediff_weights=osediff, merge=False)
    with pytest.raises(RasrError, match=r"holds the OSEDiff weights .*osediff.pkl.*; share the weight file"):
        net.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_card_that_is_there_stays(folder):
    (folder / "README.md").write_text("written by hand")
    RASRNet.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "written by hand"


def test_an_interrupted_save_leaves_no_foreign_branch(folder, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("rasr.backbones.one_step.save_parts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_net(seed=1).save_pretrained(folder)
    assert not (folder / BRANCH).exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", sorted(PARTS | {BRANCH}))
def test_a_truncated_file_is_named(folder, name):
    cut(folder / name)
    thing = BRANCH if name == BRANCH else f"its {name.split('/')[0]} "
    with pytest.raises(RasrError, match=thing) as caught:
        RASRNet.from_pretrained(folder)
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", sorted(PARTS - {"model_index.json"}))
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(RasrError, match=f"its {name.split('/')[0]} ") as caught:
        RASRNet.from_pretrained(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(
        RasrError, match=f"not a diffusers-format directory: {part} missing; copy or download"
    ):
        RASRNet.from_pretrained(folder)


def test_tensors_of_another_network_are_refused(folder):
    shutil.copy(folder / "vae/diffusion_pytorch_model.safetensors", folder / "text_encoder/model.safetensors")
    with pytest.raises(RasrError, match=r"its text_encoder .*tensors missing"):
        RASRNet.from_pretrained(folder)


def test_nothing_is_unpickled(folder):
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save(make_net().backbone.unet.state_dict(), folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(RasrError, match="its unet"):
        RASRNet.from_pretrained(folder)


def test_a_branch_that_does_not_fit_is_named(folder):
    make_tiny_backbone(unet_channels=(8, 16, 16, 16)).save_pretrained(folder)
    with pytest.raises(RasrError, match=rf"mine/{BRANCH}: .*; use weights made"):
        RASRNet.from_pretrained(folder)


def test_a_branch_of_a_later_version_is_named(folder):
    branch = load_file(folder / BRANCH)
    save_file(branch, folder / BRANCH, metadata={"rasr_net_config": '{"backbone": "", "novelty": 1}'})
    with pytest.raises(RasrError, match=rf"{BRANCH} is of another version of RASR .*novelty"):
        RASRNet.from_pretrained(folder)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RasrError, match="file is a file; give the name of a folder"):
        make_net().save_pretrained(tmp_path / "file")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("owner/name", "weights=owner/name is no folder here, not in the hub's cache.*give weights=FOLDER"),
        ("lost", "weights=lost does not exist; give"),
        ("out/lost.safetensors", "weights=out/lost.safetensors does not exist; give"),
        ("a/b/c", "weights=a/b/c does not exist; give"),
        ("./lost", "weights=lost does not exist; give"),
    ],
)
def test_what_is_neither_here_nor_on_the_hub_is_named(no_hub, weights, message):
    for load in (load_rasr_net, RASRNet.from_pretrained):
        with pytest.raises(RasrError, match=message):
            load(weights)


def test_no_weights_are_those_of_the_repository(shared_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SHIPPED_WEIGHTS", shared_folder)
    assert load_rasr_net().config.text_blocks == (2, 3)
    monkeypatch.setattr(module, "SHIPPED_WEIGHTS", tmp_path / "none")
    with pytest.raises(RasrError, match=r"no weights= given, .* not at .*none; add weights=FILE"):
        load_rasr_net()


def test_a_hub_id_is_fetched_and_remembered(shared_folder, monkeypatch, images):
    asked = {}

    def snapshot(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(shared_folder)

    monkeypatch.setattr("rasr.pretrained.is_within_reach", lambda url: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    net = RASRNet.from_pretrained("owner/name", revision="v1")
    assert asked["repo_id"] == "owner/name" and asked["revision"] == "v1" and not asked["local_files_only"]
    matched = {
        name for name in files(shared_folder) if any(Path(name).match(p) for p in asked["allow_patterns"])
    }
    assert matched == PARTS | {BRANCH}
    assert net.config.backbone == "owner/name"
    expected = RASRNet.from_pretrained(shared_folder)(images["lq_up"], images["ref"])
    assert torch.equal(net(images["lq_up"], images["ref"]), expected)


def test_a_hub_that_refuses_is_one_line(monkeypatch):
    def snapshot(repo_id, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("401 Client Error\nmore about it")

    monkeypatch.setattr("rasr.pretrained.is_within_reach", lambda url: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(RasrError, match=r"not to be had from the hub \(401 Client Error more") as caught:
        RASRNet.from_pretrained("owner/name")
    assert len(str(caught.value).splitlines()) == 1


class FakeHub:
    """Stands in for the hub's three calls, and keeps what it was sent."""

    def __init__(self, monkeypatch, *, has_card: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        self.has_card = has_card
        for name in ("create_repo", "file_exists", "upload_folder"):
            monkeypatch.setattr(HfApi, name, getattr(self, name))

    def create_repo(self, repo_id, *, private, exist_ok):
        self.private = private
        assert exist_ok
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def file_exists(self, repo_id, filename):
        assert filename == "README.md"
        return self.has_card

    def upload_folder(self, *, repo_id, folder_path, commit_message, ignore_patterns):
        self.message = commit_message
        skipped = ignore_patterns or []
        self.files = {n: (folder_path / n).read_bytes() for n in files(folder_path) if n not in skipped}
        return f"https://huggingface.co/{repo_id}/commit/1"


@pytest.mark.parametrize("has_card", [False, True])
def test_push_to_hub_uploads_what_save_pretrained_writes(shared_folder, monkeypatch, has_card):
    hub = FakeHub(monkeypatch, has_card=has_card)
    url = make_net().push_to_hub("owner/published", private=True, commit_message="First")
    assert url == "https://huggingface.co/owner/published/commit/1"
    assert hub.private is True and hub.message == "First"
    assert hub.files.keys() == PARTS | {BRANCH} | (set() if has_card else {"README.md"})
    assert {name: hub.files[name] for name in tensors(shared_folder)} == tensors(shared_folder)
    if not has_card:
        assert b'from_pretrained("owner/published")' in hub.files["README.md"]


def test_a_push_that_fails_is_one_line(monkeypatch):
    hub = FakeHub(monkeypatch)

    def refuse(*args, **kwargs):
        raise OSError("401 Unauthorized\nand a page of text")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(RasrError, match=r"cannot push to owner/mine \(401 Unauthorized\); log in") as caught:
        make_net().push_to_hub("owner/mine")
    assert len(str(caught.value).splitlines()) == 1 and not hub.files
