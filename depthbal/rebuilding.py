"""Models and losses made again from what a checkpoint says about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from depthbal.errors import CheckpointError, ConfigError
from depthbal.losses import LOSSES
from depthbal.models.registry import build_model


def build_part(file: Path, role: Literal["model", "criterion"], described: Any) -> nn.Module:
    """Make the model or criterion that a checkpoint describes, without weights."""
    name, init_args = described.get("name"), described.get("init_args")
    try:
        if init_args is None or (role == "criterion" and name not in LOSSES):
            raise ConfigError(f"{name} is not a {role} class of depthbal")
        return build_model(name, init_args) if role == "model" else LOSSES[name](**init_args)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the {role} of {file} cannot be made: {error}; make it yourself and pass it as "
            f"load_predictor(path, {role}=...)"
        ) from error


def part_of_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries under `prefix`, without it."""
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def load_criterion(criterion: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Fill the loss; its prior's size is only known from `state`, so it checks the names itself."""
    try:
        criterion.load_state_dict(state)
    except RuntimeError as error:
        differences = " ".join(str(error).split())  # torch spreads them over lines
        raise CheckpointError(
            f"cannot load {file} into the criterion {type(criterion).__name__}: {differences}"
        ) from error
