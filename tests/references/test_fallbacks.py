"""What happens without a good reference: the control flow, and small random models behind it."""

import huggingface_hub
import pytest
import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

from rasr.errors import RasrError
from rasr.evaluation import no_reference, toolbox
from rasr.evaluation.no_reference import NoReferenceMetric
from rasr.models import make_tiny_backbone
from rasr.references import AdaGenRef, CaptionToImage, GenRef, OriginLRM, Reference, fallbacks, weigh

LQ = torch.rand(3, 8, 8)


def found(*scores):
    references = [Reference(f"r{i}", lambda: LQ, score=score) for i, score in enumerate(scores)]
    return weigh(references)


def restore(references):
    """A restoration that shows which references it had."""
    return torch.full((3, 2, 2), sum(hash(r.id) % 97 for r in references) / 1000)


def generate(lq):
    return Reference("generated", lambda: lq, "a cat")


def ids(references):
    return [reference.id for reference in references]


@pytest.mark.parametrize(
    ("min_score", "expected"),
    [(None, ["r0", "r1"]), (0.6, ["r0"]), (0.5, ["r0", "r1"]), (0.95, [])],
)
def test_origin_lrm_leaves_far_references_out(min_score, expected):
    sr, used = OriginLRM(min_score)(restore, LQ, found(0.9, 0.5))
    assert ids(used) == expected
    assert torch.equal(sr, restore(used))
    assert sum(r.weight for r in used) == pytest.approx(1 if used else 0)
    if expected == ["r0"]:
        assert used[0].weight == pytest.approx(1)  # the shares are made anew


def test_given_references_have_no_score_and_stay():
    given = [Reference("given", lambda: LQ)]
    assert OriginLRM(0.9)(restore, LQ, given)[1] == given


def test_gen_ref_generates_only_where_nothing_is_near():
    def unwanted(lq):
        raise AssertionError("generated though a near reference was there")

    assert ids(GenRef(unwanted, 0.5)(restore, LQ, found(0.9))[1]) == ["r0"]
    assert ids(GenRef(generate, 0.95)(restore, LQ, found(0.9))[1]) == ["generated"]
    assert ids(GenRef(generate)(restore, LQ, [])[1]) == ["generated"]


@pytest.mark.parametrize(
    ("prefers", "expected"), [("found", "r0"), ("generated", "generated"), ("tie", "r0")]
)
def test_ada_gen_ref_keeps_the_better(prefers, expected):
    references = found(0.9)
    quality = {
        float(restore(references)[0, 0, 0]): 1.0 if prefers == "found" else 0.0,
        float(restore([generate(LQ)])[0, 0, 0]): 1.0 if prefers == "generated" else 0.0,
    }
    ada = AdaGenRef(generate, lambda image: quality[float(image[0, 0, 0])])
    sr, used = ada(restore, LQ, references)
    assert ids(used) == [expected]
    assert torch.equal(sr, restore(used))


def test_ada_gen_ref_without_a_reference_takes_the_generated_one():
    assert ids(AdaGenRef(generate, lambda image: 0.0)(restore, LQ, [])[1]) == ["generated"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A random BLIP and a random Stable Diffusion, in their own formats."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_backbone(seed=0).save_pretrained(folder / "sd")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *"abcdefghij"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    text = BlipTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        encoder_hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=5,
        eos_token_id=2,
        pad_token_id=0,
        sep_token_id=3,
    )
    vision = BlipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BlipForConditionalGeneration(config).save_pretrained(folder / "blip")
    image_processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor, tokenizer).save_pretrained(folder / "blip")
    return folder


def test_a_reference_is_made_from_a_caption(models):
    settings = {"size": 32, "n_steps": 2, "device": "cpu"}
    make = CaptionToImage(str(models / "blip"), str(models / "sd"), **settings)
    reference = make(LQ)
    assert reference.id == "generated" and reference.score is None
    image = reference.read()
    assert image.shape == (3, 32, 32) and image.min() >= 0 and image.max() <= 1
    assert torch.equal(make(LQ).read(), image)
    for change in ({"seed": 1}, {"n_steps": 3}, {"size": 48}):
        for name, value in (settings | {"seed": 0} | change).items():
            if name != "device":
                setattr(make, name, value)
        other = make(LQ).read()
        assert other.shape != image.shape or not torch.equal(other, image)


def test_missing_models_are_one_line(models, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for captioner, text_to_image in (("lost", models / "sd"), (models / "blip", "lost")):
        with pytest.raises(RasrError, match="lost") as caught:
            CaptionToImage(str(captioner), str(text_to_image), device="cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_online", [True, False])
def test_without_a_network_nothing_waits_for_the_hub(models, monkeypatch, is_online):
    asked = []

    def load(name, **options):
        asked.append(options["local_files_only"])
        raise OSError(f"no {name}")

    monkeypatch.setattr(fallbacks, "is_within_reach", lambda url: is_online)
    monkeypatch.setattr(BlipProcessor, "from_pretrained", load)
    with pytest.raises(RasrError, match=r"captioner=lost/blip .*\(no lost/blip\); give directories"):
        CaptionToImage("lost/blip", str(models / "sd"), device="cpu")
    assert asked == [not is_online]


def test_a_missing_metric_is_one_line(monkeypatch):
    monkeypatch.setattr(toolbox, "find_spec", lambda name: None)
    with pytest.raises(RasrError, match="name=musiq is not available: it needs pyiqa; install it"):
        NoReferenceMetric("musiq", device="cpu")
    with pytest.raises(RasrError, match="name=psnr cannot judge alone; give one of niqe"):
        NoReferenceMetric("psnr", device="cpu")


def test_a_metric_is_turned_so_that_higher_is_better(monkeypatch):
    def open_metrics(names, protocol, device):
        measure = lambda sr, gt: sr.mean((1, 2, 3))  # noqa: E731
        return {name: toolbox.Metric(name, "", measure) for name in names}, {}

    monkeypatch.setattr(no_reference, "open_metrics", open_metrics)
    image = torch.full((3, 4, 4), 0.25)
    assert NoReferenceMetric("niqe", device="cpu")(image) == -0.25
    assert NoReferenceMetric("musiq", device="cpu")(image) == 0.25
