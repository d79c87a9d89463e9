"""ReFIR (Guo et al., NeurIPS 2024): references injected into a restoration model without training.

On a one-step backbone it is a fusion (`rasr.fusion.injection`); here is what only ReFIR has: multi-step
chains, the official code's shared canvas, pictures of what is seen.
"""

from rasr.config.injection import PRESETS, InjectionConfig
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.attention.injector import ReferenceInjector, find_sites
from rasr.fusion.attention.processor import InjectionState, ReferenceAttnProcessor
from rasr.refir.chain_net import ChainNet
from rasr.refir.chains import ChainAdapter, NoiseSource, Source, run_target
from rasr.refir.multi_step import MultiStepChain
from rasr.refir.one_step import OneStepChain
from rasr.refir.opening import open_multi_step, open_refir, with_fusion

__all__ = [
    "PRESETS",
    "ChainAdapter",
    "ChainNet",
    "InjectionConfig",
    "InjectionState",
    "MultiStepChain",
    "NoiseSource",
    "OneStepChain",
    "ReferenceAttnProcessor",
    "ReferenceBank",
    "ReferenceInjector",
    "Source",
    "find_sites",
    "open_multi_step",
    "open_refir",
    "run_target",
    "with_fusion",
]
