"""What `train.py` does with its configuration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from rasr.backbones.lora import cast_frozen
from rasr.data.datamodule import RASRDataModule
from rasr.errors import RasrError
from rasr.models import save_weights
from rasr.models.rasr_net import count_parameters
from rasr.training import AtomicCheckpointIO, RASRModule
from rasr.training.setup import check_launch, find_checkpoint, resolve_config, validate

logger = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Trains a net; the keys are those of `conf/train.yaml`. Runs inside a Hydra job.

    Raises:
        RasrError: a wrong value, before the weights are loaded, or a checkpoint of another run.
    """
    job = HydraConfig.get()
    cfg.paths.output_dir = job.runtime.output_dir  # in a sweep, every job has its own
    check_launch(cfg, is_multirun=job.mode == RunMode.MULTIRUN)
    validate(cfg)
    if not cfg.loss.weights.get("gan"):
        cfg.discriminator = None
    run_config = resolve_config(cfg)
    checkpoint = find_checkpoint(cfg, run_config)
    OmegaConf.save(run_config, Path(cfg.paths.output_dir) / "config.yaml")
    pl.seed_everything(cfg.seed, workers=True)

    # 1. data first: what is wrong with it shows before gigabytes of weights are loaded
    datamodule: RASRDataModule = instantiate(cfg.data)
    datamodule.setup("fit")

    # 2. network and what trains it
    module: RASRModule = instantiate(cfg.module)
    module.run_config = run_config
    multiple = module.net.backbone.size_multiple
    if cfg.gt_size % multiple:
        raise RasrError(f"gt_size={cfg.gt_size} does not fit the backbone; give a multiple of {multiple}")
    if module.net.fusion is not None and not datamodule.train_set.has_references:
        raise RasrError(
            f"{cfg.data.train} has no references, which the branch learns from; "
            "give it some: python index.py database=DIR index=PATH assign=MANIFEST.csv"
        )
    if cfg.trainer.precision == "bf16-mixed":
        for net in (module.net, module.discriminator):
            if net is not None:
                cast_frozen(net, torch.bfloat16)
    trainable, total = count_parameters(module.net)
    logger.info("%s trainable of %s parameters", f"{trainable:,}", f"{total:,}")

    # 3. fit
    callbacks = {name: callback for name, callback in instantiate(cfg.callbacks).items() if callback}
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        callbacks=list(callbacks.values()),
        logger=instantiate(cfg.logger),
        plugins=[AtomicCheckpointIO()],
    )
    if checkpoint is None and datamodule.val_set is not None:
        trainer.validate(module, datamodule, verbose=False)  # the untrained net, as step 0 of the log
    trainer.fit(module, datamodule, ckpt_path=checkpoint)

    # 4. what inference needs
    if trainer.is_global_zero and not trainer.interrupted:
        with callbacks["ema"].swapped(module.net):
            target = save_weights(module.net, Path(cfg.paths.output_dir) / "weights")
        logger.info("weights written to %s", target)
