"""Which option a misspelt one was meant to be."""

import inspect
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pydoc import locate

UNKNOWN_OPTION = re.compile(r"unrecognized arguments: --([^\s=]+)", re.IGNORECASE)
UNKNOWN_KEY = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
UNKNOWN_ARGUMENTS = (
    re.compile(r"class_path '(?P<path>[^']+)':\s+Option '(?P<name>[^']+)' is not accepted"),
    re.compile(
        r"Option '(?P<name>[^']+)' is not accepted\. "
        r"Got value: Namespace\(class_path='(?P<path>[^']+)'"
    ),
)
CUTOFF = 0.7  # of difflib's likeness, from 0 to 1


def did_you_mean(message: str, known: Iterable[str] = ()) -> str:
    """Return a question to put behind a parser's message, "" where nothing is near.

    Args:
        message: What the parser says.
        known: Every setting by its dotted name; arguments of classes need not be among them.

    Example:
        >>> did_you_mean("unrecognized arguments: --trainer.max_epoch 3", ["trainer.max_epochs"])
        '; did you mean --trainer.max_epochs?'
        >>> did_you_mean("unrecognized arguments: --colour blue", ["trainer.max_epochs"])
        ''
    """
    argument = next((found for p in UNKNOWN_ARGUMENTS if (found := p.search(message))), None)
    if argument:
        near = _near(argument["name"], _arguments_of(argument["path"]))
    elif option := UNKNOWN_OPTION.search(message):
        near = [f"--{key}" for key in _near_keys(option[1], list(known))]
    elif key := UNKNOWN_KEY.search(message):
        keys = _near_keys(f"{key[1]}.{key[2]}", list(known))
        near = [name.removeprefix(f"{key[1]}.") for name in keys]
    else:
        near = []
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _near_keys(wanted: str, known: list[str]) -> list[str]:
    """Return the nearest settings of the same section; anywhere, where there is no such section."""
    section, dot, name = wanted.rpartition(".")
    beside = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == section]
    near = [f"{section}{dot}{last}" for last in _near(name, beside)]
    return near if near or (section and beside) else _near(wanted, known)


def _near(wanted: str, known: Sequence[str]) -> list[str]:
    """Return the nearest names, else those that begin alike."""
    near = get_close_matches(wanted, known, n=2, cutoff=CUTOFF)
    return near or [name for name in known if name.startswith(wanted)][:2]


def _arguments_of(path: str) -> list[str]:
    """Return the arguments of a class, with those that it hands on to its bases."""
    found = locate(path)
    makers = inspect.getmro(found) if isinstance(found, type) else (found,)
    return list(dict.fromkeys(name for maker in makers for name in _parameters(maker)))


def _parameters(maker: object) -> list[str]:
    """Return what a class or function takes by name; nothing where it does not say."""
    try:
        found = inspect.signature(maker).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter.name for parameter in found if parameter.kind not in unnamed]
