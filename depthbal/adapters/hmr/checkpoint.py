"""Published SPIN checkpoints into the backbone and the regressor."""

from pathlib import Path

from depthbal.adapters.hmr.backbone import ResNet50Features
from depthbal.adapters.hmr.head import SpinHead
from depthbal.errors import CheckpointError
from depthbal.models.weights import load_exactly, read_state_dict

PREFIXES = ("module.", "backbone.", "head.")
"""What DataParallel and MMHuman3D put before SPIN's names."""


def load_spin_checkpoint(
    path: str | Path, backbone: ResNet50Features, head: SpinHead, require_head: bool = False
) -> bool:
    """Fill the backbone, and the regressor if the file holds one, accounting for every key.

    Reads SPIN's `model_checkpoint.pt` (a dictionary with `model`), a bare state dict, and files
    without a regressor such as MMHuman3D's `spin_official_nofc.pth`, which leave `head` with its
    own initial weights (its start `init_*` is taken if the file has it). Runs no code from it.

    Args:
        path: the file.
        backbone: filled always.
        head: filled if the file has its layers.
        require_head: whether a file without the regressor's layers is an error.

    Returns:
        Whether the file held the regressor's layers.

    Raises:
        ConfigError: no such file.
        CheckpointError: it cannot be read, keys are missing, unexpected or of another shape (lists
            them), or the regressor is missing and required.
    """
    found = read_state_dict(path)
    state = {_without_prefixes(name): value for name, value in found.items()}
    if len(state) < len(found):
        raise CheckpointError(f"{path} holds the same parameters under two names")
    own = head.state_dict()
    regressor = {name: state.pop(name) for name in own if name in state}
    has_head = any(not name.startswith("init_") for name in regressor)
    if require_head and not has_head:
        layers = [name for name in own if not name.startswith("init_")]
        raise CheckpointError(
            f"{path} holds no regressor, only the backbone: {', '.join(layers)} are missing; give "
            "SPIN's full checkpoint, or train the regressor on this one first"
        )
    load_exactly(backbone, state, f"{path} into SPIN's backbone (ResNet-50 without fc)")
    complete = regressor if has_head else {**own, **regressor}
    load_exactly(head, complete, f"{path} into SPIN's regressor")
    return has_head


def _without_prefixes(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
