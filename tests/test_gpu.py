"""What only a CUDA device shows: the same results as on the CPU, and mixed precision."""

import pytest
import torch
from safetensors.torch import load_file

from rasr.inference import Restorer
from rasr.models import DinoDiscriminator, build_rasr_net, make_tiny_backbone
from tests.helpers import run_entry, wake_zero_convs, write_training_set

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def net():
    net = build_rasr_net(make_tiny_backbone(seed=0))
    wake_zero_convs(net)
    return net.eval()


def test_restoration_equals_that_of_the_cpu(net):
    lq, ref = torch.rand(3, 40, 56), torch.rand(3, 96, 80)
    on_cpu = Restorer(net, device="cpu").restore(lq, ref, prompt="a cat")
    on_gpu = Restorer(net, device="auto").restore(lq, ref, prompt="a cat")
    assert next(net.parameters()).device.type == "cuda"
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-3, rtol=0)


def test_half_precision_stays_near(net):
    lq_up, ref = torch.rand(2, 1, 3, 64, 64, device="cuda").unbind(0)
    net.cuda()
    with torch.inference_mode():
        full = net(lq_up, ref)
        half = net.bfloat16()(lq_up, ref)
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() < 0.02


def test_discriminator_under_autocast():
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2)
    discriminator = DinoDiscriminator(vit, blocks=(1,), width=8).cuda()
    images = torch.rand(2, 3, 64, 64, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        logits = discriminator(images)
    assert all(x.dtype == torch.float32 for x in logits)
    sum(x.sum() for x in logits).backward()
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_training_on_one_gpu_goes_on(tmp_path, precision):
    """Straight equals resumed, up to what kernels without a deterministic form add."""
    write_training_set(tmp_path, count=8, side=80)

    def train(name: str, steps: int) -> None:
        done = run_entry(
            "train.py",
            *("debug=default", "trainer=gpu", f"trainer.precision={precision}", f"trainer.max_steps={steps}"),
            *("+trainer.deterministic=warn", f"model.backbone={tmp_path}/backbone", "gt_size=64"),
            *("data.batch_size=2", "data.val=null", f"data.train={tmp_path}/manifest.csv", "resume=auto"),
            *("callbacks.checkpoint.every_n_train_steps=2", f"paths.output_dir={tmp_path}/{name}"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr

    train("straight", 4)
    train("resumed", 2)
    train("resumed", 4)
    straight, resumed = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "resumed"))
    assert {tensor.dtype for tensor in straight.values()} == {torch.float32}
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-6, rtol=1e-4)
