"""A config that belongs to another tool than the one that was called."""

from collections.abc import Mapping
from pathlib import Path

from depthbal.errors import ConfigError
from depthbal.training.configs import config_chain, read_mapping
from depthbal.training.runs import RunFolder, run_name

TOOLS = {
    "depthbal.data.": "tools/train.py",
    "depthbal.adapters.age.": "tools/train_age.py",
    "depthbal.adapters.hmr.": "tools/train_hmr.py",
}
"""Which tool trains with the data modules of a package."""
FOLDERS = {"age": "tools/train_age.py", "hmr": "tools/train_hmr.py"}
"""Which tool the shipped configs are for that take their data from another run."""


def require_tool(prog: str, config: Path, resume: RunFolder | None = None) -> None:
    """Check that a config's data are those of the tool that was called; foreign data are anybody's.

    Args:
        prog: The tool, as in `TOOLS`.
        config: The config file.
        resume: The run that it was read from, if it was.

    Raises:
        ConfigError: They are another tool's; says which, and what to type.
    """
    data = _data_class(config)
    tool = next((tool for package, tool in TOOLS.items() if data.startswith(package)), None)
    if not data:
        tool = FOLDERS.get(run_name(config.absolute()).partition("-")[0])
    if tool in (None, prog):
        return
    if resume is None:
        what, command = f"{config} is a config", f"{tool} --config {config}"
    else:
        what, command = f"{resume.path} is a run", f"{tool} --resume {resume.path}"
    raise ConfigError(f"{what} of {tool}, not of {prog}; type: python {command}")


def _data_class(config: Path) -> str:
    """Return the class of the data that a config and its bases name, "" where none does."""
    found = ""
    for file in config_chain(config):
        data = read_mapping(file).get("data")
        if isinstance(data, Mapping):
            found = str(data.get("class_path") or found)
    return found
