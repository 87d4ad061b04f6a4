"""SPIN's network: a frozen ResNet-50, and a regressor of pose, shape and camera."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import roma
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from depthbal.adapters.hmr.files import BETAS, JOINTS, read
from depthbal.errors import CheckpointError, ConfigError
from depthbal.models.weights import load_exactly, read_state_dict

STATE = {"pose": (6 * JOINTS,), "shape": (BETAS,), "cam": (3,)}
"""What the regressor's iteration changes: rotations of six numbers, betas, camera."""


class Prediction(NamedTuple):
    """Bodies in B images: rotations (B, 24, 3, 3), the root's first, betas (B, 10), cam (B, 3)."""

    rotmats: Tensor
    betas: Tensor
    cam: Tensor


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """Return rotation matrices (..., 3, 3) of SPIN's [r11, r12, r21, r22, r31, r32] (..., 6)."""
    # 1e-12 is what SPIN's normalisation keeps a vanishing column from dividing by
    columns = rot6d.reshape(*rot6d.shape[:-1], 3, 2)
    return roma.special_gramschmidt(columns, epsilon=1e-12)  # type: ignore[no-any-return]


def read_mean(root: Path) -> dict[str, Tensor]:
    """Return where the regressor starts, of SPIN's `smpl_mean_params.npz`, as float32."""
    arrays = read(root / "smpl_mean_params.npz", STATE)
    return {key: torch.from_numpy(arrays[key]).float() for key in STATE}


class SpinHead(nn.Module):
    """Three residual steps as in SPIN's `models/hmr.py` (Kolotouros et al., ICCV 2019)."""

    def __init__(self, features: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.iterations = 3
        for name, (size,) in STATE.items():
            self.register_buffer(f"init_{name}", torch.zeros(1, size))
        rest = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(JOINTS)
        self.start_from({"pose": rest, "cam": torch.tensor([0.9, 0, 0])})
        self.fc1 = nn.Linear(features + sum(size for (size,) in STATE.values()), 1024)
        self.fc2 = nn.Linear(1024, 1024)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)
        self.decpose = nn.Linear(1024, 6 * JOINTS)
        self.decshape = nn.Linear(1024, BETAS)
        self.deccam = nn.Linear(1024, 3)
        for decoder in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(decoder.weight, gain=0.01)

    def start_from(self, mean: Mapping[str, Tensor]) -> None:
        """Set where the iteration starts."""
        for name, value in mean.items():
            self.get_buffer(f"init_{name}").copy_(value[None])

    def forward(self, features: Tensor) -> Prediction:
        """Return the prediction after the last iteration."""
        starts = (self.get_buffer(f"init_{name}") for name in STATE)
        pose, shape, cam = (start.expand(len(features), -1) for start in starts)
        for _ in range(self.iterations):
            hidden = self.drop1(self.fc1(torch.cat([features, pose, shape, cam], dim=1)))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            shape = shape + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return Prediction(rot6d_to_rotmat(pose.reshape(-1, JOINTS, 6)), shape, cam)


class SpinNetwork(nn.Module):
    """Regress bodies from images (B, 3, 224, 224), or from features (B, F) of a frozen backbone.

    The backbone is torchvision's ResNet-50 without `fc`, whose 318 parameters and statistics carry
    the names and shapes of SPIN's; the published training gives it a new regressor.

    Args:
        weights: SPIN's model_checkpoint.pt, or MMHuman3D's spin_official_nofc.pth, the backbone.
        features: Width F of features that come without a backbone; null for a network with one.
        keep_head: Start from the checkpoint's regressor rather than from new weights.
        dropout: Of the regressor in training.

    Raises:
        ConfigError: No such checkpoint, or settings that contradict each other.
        CheckpointError: Its keys or shapes are not SPIN's (lists them).

    Example:
        >>> network = SpinNetwork(features=32).eval()
        >>> network(torch.zeros(2, 32)).rotmats.shape
        torch.Size([2, 24, 3, 3])
    """

    def __init__(
        self,
        weights: str | None = None,
        features: int | None = None,
        keep_head: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if features is not None and (weights is not None or keep_head):
            raise ConfigError("features have no backbone: leave out weights and keep_head")
        self.init_args = {"features": features, "dropout": dropout}
        self.weights, self.keep_head, self.features = weights, keep_head, features or 2048
        self.head = SpinHead(self.features, dropout)
        self.backbone: nn.Module | None = None
        if features is None:
            self.backbone = resnet50()
            self.backbone.fc = nn.Identity()
        if weights is not None:
            _load_spin(weights, self)

    def forward(self, network_input: Tensor) -> Prediction:
        """Return the prediction for images (B, 3, 224, 224) or features (B, F)."""
        if network_input.ndim == 4 and self.backbone is not None:
            network_input = self.backbone(network_input)
        return self.head(network_input)  # type: ignore[no-any-return]


def _load_spin(path: str, network: SpinNetwork) -> None:
    """Fill the backbone and, where it is kept, the regressor, accounting for every key."""
    found, own, state = read_state_dict(path), network.state_dict(), dict[str, Tensor]()
    for key, value in found.items():  # DataParallel and MMHuman3D put these before SPIN's names
        name = key.removeprefix("module.").removeprefix("backbone.").removeprefix("head.")
        state[f"head.{name}" if f"head.{name}" in own else f"backbone.{name}"] = value
    if len(state) < len(found):
        raise CheckpointError(f"{path} holds the same parameters under two names")
    if not network.keep_head:
        state |= {name: value for name, value in own.items() if name.startswith("head.")}
    load_exactly(network, state, f"{path} into SPIN's backbone (ResNet-50 without fc) and head")
