"""Lets one file hold all options of a Hydra group: entry NAME of `conf/options/GROUP.yaml` is `GROUP=NAME`.

It stands for a file `conf/GROUP/NAME.yaml`, which still may be there and goes first. An entry whose name
begins with `_` is a piece that others refer to.
"""

import functools
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

# Where an option's keys go, if not into the key of the group's name.
_PACKAGES = {"baselines": "baselines.{option}", "table": "_global_"}


class OptionsSource(ConfigSource):
    """The groups of a folder `conf/options`; keeps nothing itself, as Hydra copies sources often."""

    @staticmethod
    def scheme() -> str:
        return "options"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        group, option = _split(config_path)
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}/{group}.yaml",
            config=OmegaConf.create(self._options(group)[option]),
            header={"package": _PACKAGES.get(group, group).format(option=option)},
        )

    def is_group(self, config_path: str) -> bool:
        return bool(self._options(config_path.strip("/")))

    def is_config(self, config_path: str) -> bool:
        group, option = _split(config_path)
        return option in self._options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        group = config_path.strip("/")
        if group:
            return sorted(self._options(group)) if results_filter is not ObjectType.GROUP else []
        groups = sorted(path.stem for path in Path(self.path).glob("*.yaml"))
        return groups if results_filter is not ObjectType.CONFIG else []

    def _options(self, group: str) -> dict[str, Any]:
        file = Path(self.path) / f"{group}.yaml"
        return read_options(file) if group and file.is_file() else {}


class OptionsSearchPath(SearchPathPlugin):
    """Adds the folder `options` of the command's own configuration to what Hydra searches."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in list(search_path.get_path()):
            options = Path(element.path.removeprefix("file://")) / "options"
            if element.provider == "main" and options.is_dir():
                search_path.append("options", f"options://{options}")


@functools.cache
def read_options(file: Path) -> dict[str, Any]:
    """{option: what a file of its own would hold} of a file in `conf/options`."""
    options = OmegaConf.to_container(OmegaConf.load(file))
    return {name: body for name, body in options.items() if not name.startswith("_")}


def _split(config_path: str) -> tuple[str, str]:
    """Group and option of `GROUP/OPTION.yaml`."""
    group, _, option = config_path.strip("/").removesuffix(".yaml").rpartition("/")
    return group, option


for _plugin in (OptionsSource, OptionsSearchPath):
    Plugins.instance().register(_plugin)
