"""Parser messages without the parser's inner life."""

import re
from collections.abc import Iterable

from depthbal.losses import LOSSES
from depthbal.models.registry import registered_names
from depthbal.training.near_options import did_you_mean

NOISE = (
    "Does not validate against any of",
    "Subtypes: ",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but ",
    "Given value type: ",
    "Given value: NestedArg",
    "Given value: Namespace",
)
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")


def explain(message: str, known: Iterable[str] = ()) -> str:
    """Return a parser's message with every fact once.

    Args:
        message: What jsonargparse says.
        known: Every setting by its dotted name, among which a misspelt one is looked for.

    Example:
        >>> print(explain('''Parser key "model.criterion":
        ...   Does not validate against any of the Union subtypes
        ...   Errors:
        ...     - Problem with given class_path 'depthbal.losses.GAILoss':
        ...         Option 'sigma' is not accepted
        ...     - Problem with given class_path 'depthbal.losses.GAILoss':
        ...         Option 'sigma' is not accepted'''))
        setting model.criterion: Problem with given class_path 'depthbal.losses.GAILoss':
          Option 'sigma' is not accepted
    """
    lines: list[str] = []
    for line in message.splitlines():
        fact = line.strip().removeprefix("- ")
        if fact and not fact.startswith(NOISE) and fact not in lines:
            lines.append(fact)
    if any(line.startswith("Problem with given class_path") for line in lines):
        # what else the setting might have been; a type with a value is of the class's own argument
        lines = [
            line
            for line in lines
            if not line.startswith("Expected a <class") or "Got value" in line
        ]
    text = "\n  ".join(lines)
    text = re.sub(r'Parser key "([^"]+)":\n ', r"setting \1:", text)
    unknown = UNKNOWN_CLASS.search(text)
    if unknown:
        text = UNKNOWN_CLASS.sub(f"there is no class {unknown[1]}{_known(text)}", text)
    config = re.search(r"unrecognized arguments: (\S+\.ya?ml)\b", text)
    if config:
        return f"{text}; a config is given with --config {config[1]}"
    return text + did_you_mean(text, known)


def _known(text: str) -> str:
    names = {
        "model.criterion": sorted(LOSSES),
        "model.model": registered_names(),
        "data": ["FolderDataModule", "NYUD2DataModule", "RoomsDataModule"],
    }
    for key, known in names.items():
        if f"setting {key}:" in text:
            return f"; known: {', '.join(known)}, and any other by its full path"
    return ""
