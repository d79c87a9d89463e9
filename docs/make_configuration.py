"""Writes docs/configuration.md, the tables of all keys, from rasr/config: `make docs`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rasr.config.commands import COMMANDS, also_of  # noqa: E402 - started as a file, too
from rasr.config.correspondence import CorrespondenceConfig  # noqa: E402
from rasr.config.injection import InjectionConfig  # noqa: E402
from rasr.config.keys import defaults_of, specs_of  # noqa: E402
from rasr.config.net import RASRNetConfig  # noqa: E402

GROUPS = {
    "model of train.py": RASRNetConfig,
    "model.fusion_settings of train.py, for fusion=correspondence": CorrespondenceConfig,
    "refir of infer.py": InjectionConfig,
}
TARGET = ROOT / "docs" / "configuration.md"
MAIN = ("infer", "index", "train", "evaluate")

HEAD = """\
# Configuration

Written by `make docs` from `rasr/config/`, where defaults, ranges and meanings stand; `--help` and the
checks come from the same place. A value outside its range, an unknown key or a misspelt one is one line,
before anything is opened.

Every command takes `key=value`, and `group=option` for the files of `conf/`: `conf/GROUP/OPTION.yaml`, or
an entry `OPTION` of `conf/options/GROUP.yaml`. `--cfg job` prints the composed configuration, `--multirun`
runs a sweep (`seed=0,1,2`). `hydra.searchpath=[file://FOLDER]` adds a folder of your own files, and
`RASR_PLUGINS=module` what they name (`rasr/plugins.py`).
"""


def main() -> None:
    TARGET.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [f"## {name}.py\n\n{table(COMMANDS[name])}" for name in MAIN]
    parts += [f"## {title}\n\n{table(keys)}" for title, keys in GROUPS.items()]
    tools = [name for name in COMMANDS if name not in MAIN]
    parts += [f"## python -m rasr.tools {name}\n\n{table(COMMANDS[name])}" for name in tools]
    return "\n".join(parts)


def table(keys: type) -> str:
    defaults = defaults_of(keys)
    rows = [
        f"| `{name}` | {shown(defaults[name])} | {spec.values} | {escaped(spec.help)} |"
        for name, spec in specs_of(keys).items()
    ]
    rows += [f"| `{name}` | `{value}` | | {escaped(text)} |" for name, (value, text) in also_of(keys).items()]
    return "\n".join(["| key | default | values | what |", "|---|---|---|---|", *rows]) + "\n"


def shown(default: object) -> str:
    if default == "???":
        return "must be given"
    text = {None: "null", True: "true", False: "false"}.get(default) if not_number(default) else None
    return f"`{default if text is None else text}`" if default != "" else ""


def not_number(default: object) -> bool:
    return default is None or isinstance(default, bool)


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
