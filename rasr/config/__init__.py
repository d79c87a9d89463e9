"""Configuration from one source: every command's keys are a dataclass, and Hydra learns them from it.

Importing this package is enough: Hydra then knows the option `keys=COMMAND` with the dataclass' defaults, the
list of keys for `--help` (`${keys_help:COMMAND}`), and the groups in conf/options.
"""

import rasr.config.options  # noqa: F401
from rasr.config.commands import COMMANDS, check_command, keys_help

__all__ = ["COMMANDS", "check_command", "keys_help"]
