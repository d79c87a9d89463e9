"""Fusions, encoders, engines, baselines and metrics of your own, without a change to this package.

    RASR_PLUGINS=my_fusion,lab.encoders python train.py model=my_fusion ...

Each named module is imported before a command reads its configuration; there it registers what it has
(`rasr.fusion.registry.register_fusion`, `rasr.retrieval.encoders.registry.register_encoder`, ...). Its yaml
lies in any folder that `hydra.searchpath=[file://FOLDER]` names. Only the environment decides what is
imported: no file of weights, index or configuration can.
"""

import os
from importlib import import_module

from rasr.errors import RasrError, one_line

VARIABLE = "RASR_PLUGINS"


def load_plugins() -> list[str]:
    """Imports the modules that the environment names, once each; their names.

    Raises:
        RasrError: one cannot be imported.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # whatever a stranger's module raises
            raise RasrError(
                f"{VARIABLE}: cannot import {name} ({type(error).__name__}: {one_line(error)}); mend it, put "
                "its folder on PYTHONPATH, or leave it out"
            ) from error
    return names
