"""The keys that go straight to Lightning reach it."""

import pytest
from hydra.utils import instantiate


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trainer.num_sanity_val_steps=2", lambda trainer: trainer.num_sanity_val_steps),
        ("trainer.check_val_every_n_epoch=3", lambda trainer: trainer.check_val_every_n_epoch),
        ("trainer.log_every_n_steps=7", lambda trainer: trainer.log_every_n_steps),
        ("trainer.max_epochs=2", lambda trainer: trainer.max_epochs),
        ("trainer.num_nodes=1", lambda trainer: trainer.num_nodes),
    ],
)
def test_trainer_keys(compose, tmp_path, override, value):
    def make(*overrides):
        overrides = [*overrides, "trainer=cpu", f"paths.output_dir={tmp_path}"]
        return instantiate(compose(overrides).trainer, logger=False, enable_checkpointing=False)

    key = override.split("=")[0].split(".")[1]
    assert str(value(make(override))) == override.split("=")[1], key
    if key != "num_nodes":  # more than one needs a cluster
        assert value(make()) != value(make(override))


def test_model_summary_is_a_key(compose, tmp_path):
    for wanted in (True, False):
        overrides = ["trainer=cpu", f"trainer.enable_model_summary={wanted}", f"paths.output_dir={tmp_path}"]
        trainer = instantiate(compose(overrides).trainer, logger=False, enable_checkpointing=False)
        names = [type(callback).__name__ for callback in trainer.callbacks]
        assert ("ModelSummary" in names or "RichModelSummary" in names) == wanted


def test_progress_bar_is_refreshed_as_asked(compose, tmp_path):
    cfg = compose(["callbacks.progress.refresh_rate=3", f"paths.output_dir={tmp_path}"])
    assert instantiate(cfg.callbacks.progress).refresh_rate == 3


def test_wandb_keys(compose, tmp_path):
    overrides = ["logger=wandb", "logger.project=other", "logger.offline=false", "name=mine"]
    logger = instantiate(compose([*overrides, f"paths.output_dir={tmp_path}"]).logger)
    assert logger._wandb_init["project"] == "other" and logger._wandb_init["name"] == "mine"
    assert logger._offline is False
