"""Configs as base plus difference."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from depthbal.errors import ConfigError

CONFIG_FLAGS = ("--config", "-c")


def config_chain(path: Path) -> list[Path]:
    """Return the config files that ``path`` stands for, the most basic one first.

    A config may start with ``base: ../base.yaml``, relative to itself; later files win over
    earlier ones.

    Raises:
        ConfigError: A file is missing or no YAML, or bases go round in a circle.
    """
    chain: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in [known.resolve() for known in chain]:
            raise ConfigError(f"{current} is its own base: {' -> '.join(map(str, chain))}")
        chain.append(current)
        base = read_mapping(current).get("base")
        current = None if base is None else current.parent / str(base)
    return chain[::-1]


def expand_configs(arguments: Sequence[str]) -> list[str]:
    """Replace every ``--config FILE`` by the chain of files behind it.

    Example:
        >>> expand_configs(["--trainer.max_epochs", "3"])
        ['--trainer.max_epochs', '3']
    """
    expanded: list[str] = []
    remaining = iter(_split_equals(arguments))
    for argument in remaining:
        if argument not in CONFIG_FLAGS:
            expanded.append(argument)
            continue
        for file in config_chain(Path(_value_of(argument, remaining))):
            expanded += ["--config", str(file)]
    return expanded


def last_config(arguments: Sequence[str]) -> Path | None:
    """Return the last config file named on a command line, or None."""
    found = None
    remaining = iter(_split_equals(arguments))
    for argument in remaining:
        if argument in CONFIG_FLAGS:
            found = Path(_value_of(argument, remaining))
    return found


def _split_equals(arguments: Sequence[str]) -> list[str]:
    parts: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        parts += [flag, value] if equals and flag in CONFIG_FLAGS else [argument]
    return parts


def _value_of(flag: str, remaining: "object") -> str:
    value = next(remaining, None)  # type: ignore[call-overload]
    if value is None:
        raise ConfigError(f"{flag} needs the path of a config file")
    return str(value)


def read_mapping(path: Path) -> dict[str, object]:
    """Return the content of a config file, without its base.

    Raises:
        ConfigError: It is missing or holds no keys and values.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no config file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a readable YAML file: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"expected keys and values in {path}, got a {type(content).__name__}")
    return content
