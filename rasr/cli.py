"""What every command of the project does about mistakes and interruptions.

Only the command-line mains import this module::

    @hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
    @entry_point
    def main(cfg: DictConfig) -> None: ...

Exit codes: 0 done, 2 a mistake that the user can mend (one line on stderr), 130 interrupted, 1 a bug of
ours (with its traceback) or a sweep in which a job failed.
"""

import functools
import re
import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rasr.config import check_command
from rasr.errors import RasrError
from rasr.moved import current_target
from rasr.plugins import load_plugins

CONF = Path(__file__).resolve().parents[1] / "conf"


def entry_point(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap the main function of a Hydra command; see the module's text for what it adds."""

    @functools.wraps(main)
    def guarded(cfg: DictConfig) -> Any:
        try:
            load_plugins()
            _update_targets(cfg)
            _require_all_keys(cfg)
            if HydraConfig.initialized():
                job = HydraConfig.get()
                check_command(cfg, job.job.config_name, job.runtime.choices)
            return main(cfg)
        except KeyboardInterrupt:
            _stop_interrupted()
        except SystemExit as stop:
            # Lightning turns Ctrl-C into sys.exit(1) after it has shut its trainer down.
            if isinstance(stop.__context__, KeyboardInterrupt):
                _stop_interrupted()
            raise
        except (RasrError, InstantiationException) as error:
            mistake = _find_mistake(error)
            if mistake is None:
                raise
            _stop_mistaken(mistake)

    return guarded


def run_command(name: str, place: str, *, renamed: Mapping[str, str] | None = None) -> None:
    """Runs a command: composes `conf/NAME.yaml` with the command line, and calls one function with it.

    Args:
        name: of the configuration.
        place: "module:function"; imported only then, so that --help does not wait for torch.
        renamed: keys that have another name now, old -> new; they are refused.
    """
    module, function = place.split(":")

    def main(cfg: DictConfig) -> Any:
        return getattr(import_module(module), function)(cfg)

    main.__module__ = module  # what Hydra calls the job
    refuse_old_keys(sys.argv[1:], renamed or {})
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(entry_point(main))()


def spell_out_job(arguments: list[str], jobs: Collection[str]) -> list[str]:
    """Writes `verify index=...` as Hydra knows it: `job=verify index=...`."""
    first, *rest = arguments or [""]
    return [f"job={first}", *rest] if first in jobs else arguments


def rename_keys(arguments: list[str], renamed: Mapping[str, str]) -> list[str]:
    """Writes keys that have got another name as they are called now, at their first level."""
    names = "|".join(renamed)
    pattern = re.compile(rf"^([~+]*)({names})(?=[.=@]|$)")
    return [pattern.sub(lambda found: found[1] + renamed[found[2]], text) for text in arguments]


def check_keys(job: str, *, needed: Collection[str], read: Collection[str], cfg: DictConfig) -> None:
    """Refuses keys on the command line that a job does not read, and a job without a key that it needs."""
    for override in HydraConfig.get().overrides.task:
        key = re.split(r"[.=@]", override.lstrip("~+"), maxsplit=1)[0]
        if key not in {"job", *read}:
            raise RasrError(f"{key}= has no meaning for job={job}; leave it out, see --help")
    for key in needed:
        if cfg.get(key) is None:
            raise RasrError(f"missing key: {key}; add {key}=... to the command, see --help")


def refuse_old_keys(arguments: Collection[str], new_names: Mapping[str, str]) -> None:
    """Ends the command where a key has another name now.

    Args:
        arguments: the command line.
        new_names: old key -> new one.
    """
    for argument in arguments:
        key = argument.split("=")[0].lstrip("+")
        if key in new_names:
            _stop_mistaken(RasrError(f"{key}= is called {new_names[key]}= now; write {new_names[key]}=..."))


def _update_targets(node: Any) -> None:
    """Gives every `_target_` its class's present name, also in files of the user's own."""
    if not OmegaConf.is_config(node):
        return
    for key in list(node) if OmegaConf.is_dict(node) else range(len(node)):
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if key == "_target_":
            node[key] = current_target(node[key])
        else:
            _update_targets(node[key])


def _require_all_keys(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        noun = "key" if len(missing) == 1 else "keys"
        example = " ".join(f"{key}=..." for key in missing)
        raise RasrError(f"missing {noun}: {', '.join(missing)}; add {example} to the command, see --help")


def _find_mistake(error: BaseException | None) -> RasrError | None:
    """Find the RasrError that Hydra's `instantiate` may have wrapped."""
    while isinstance(error, InstantiationException):
        error = error.__cause__
    return error if isinstance(error, RasrError) else None


def _stop_mistaken(mistake: RasrError) -> None:
    lines = str(mistake).strip().splitlines() or [type(mistake).__name__]
    if len(lines) > 1:  # a data-loading worker pastes its traceback in front: "rasr...Error: the message"
        lines = [re.sub(r"^[\w.]+: ", "", lines[-1])]
    line = f"error: {lines[0]}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # SystemExit would end the whole sweep: let Hydra note the failed job and go on with the others.
        raise CompactHydraException(line) from mistake
    sys.exit(2)


def _stop_interrupted() -> None:
    print("interrupted; run the same command again to go on", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(130)
