"""ReFIR (Guo et al., NeurIPS 2024): references injected into a restoration model without training."""

from rasr.refir.bank import ReferenceBank
from rasr.refir.bank_store import BankStore
from rasr.refir.chains import ChainAdapter, NoiseSource, Source, record_source, run_target
from rasr.refir.config import PRESETS, InjectionConfig
from rasr.refir.fallbacks import AdaGenRef, CaptionToImage, GenRef, NoReferenceMetric, OriginLRM
from rasr.refir.injector import ReferenceInjector, find_sites
from rasr.refir.methods import FusionMethod, Method, ReFIRMethod
from rasr.refir.multi_step import MultiStepChain
from rasr.refir.one_step import OneStepChain
from rasr.refir.processor import InjectionState, ReferenceAttnProcessor
from rasr.refir.references import Reference, ReferenceFinder
from rasr.refir.restorer import ReFIRRestorer

__all__ = [
    "PRESETS",
    "AdaGenRef",
    "BankStore",
    "CaptionToImage",
    "ChainAdapter",
    "FusionMethod",
    "GenRef",
    "InjectionConfig",
    "InjectionState",
    "Method",
    "MultiStepChain",
    "NoReferenceMetric",
    "NoiseSource",
    "OneStepChain",
    "OriginLRM",
    "ReFIRMethod",
    "ReFIRRestorer",
    "Reference",
    "ReferenceAttnProcessor",
    "ReferenceBank",
    "ReferenceFinder",
    "ReferenceInjector",
    "Source",
    "find_sites",
    "record_source",
    "run_target",
]
