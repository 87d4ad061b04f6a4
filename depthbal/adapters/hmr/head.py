"""SPIN's regressor: from image features to pose, shape and camera in a few residual steps."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from depthbal.adapters.hmr.backbone import FEATURES
from depthbal.adapters.hmr.files import read_arrays
from depthbal.adapters.hmr.rotations import JOINTS, rot6d_to_rotmat


class MeanParams(NamedTuple):
    """Where the regressor starts, and the pose that distances are measured from."""

    pose: Tensor
    """(144,), 24 rotations of six interleaved numbers."""
    shape: Tensor
    """(10,) betas."""
    cam: Tensor
    """(3,) scale and shift of the weak-perspective camera."""

    @property
    def rotmats(self) -> Tensor:
        """The mean pose as matrices (24, 3, 3)."""
        return rot6d_to_rotmat(self.pose.reshape(JOINTS, 6))


class Prediction(NamedTuple):
    """What the regressor says about B images."""

    rotmats: Tensor
    """(B, 24, 3, 3), the first one orienting the whole body."""
    betas: Tensor
    """(B, 10)."""
    cam: Tensor
    """(B, 3)."""


def zero_mean_params() -> MeanParams:
    """Return the rest pose, the mean shape and a camera of scale 0.9."""
    identity = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(JOINTS)
    return MeanParams(identity, torch.zeros(10), torch.tensor([0.9, 0, 0]))


def load_mean_params(path: str | Path) -> MeanParams:
    """Read SPIN's `smpl_mean_params.npz`: `pose` (144,), `shape` (10,) and `cam` (3,), as float32.

    Raises:
        DataError: no such file, unreadable, or a key is missing or of another shape.
    """
    arrays = read_arrays(path, {"pose": (6 * JOINTS,), "shape": (10,), "cam": (3,)})
    return MeanParams(*(torch.from_numpy(arrays[key].astype(np.float32)) for key in arrays))


class SpinHead(nn.Module):
    """Regresses pose, shape and camera from features, with SPIN's parameter names.

    Starting from the mean, each of the iterations adds what two linear layers and one decoder each
    make of [features, pose, shape, cam]; there is no activation between the layers, so that an
    iteration is affine apart from dropout.

    Source: Kolotouros et al., ICCV 2019 (`models/hmr.py`), after Kanazawa et al., CVPR 2018.

    Args:
        mean: where the iteration starts, kept in the buffers `init_pose`, `init_shape`, `init_cam`;
            None means `zero_mean_params()`, until a checkpoint brings its own.
        features: width F of the features.
        iterations: residual updates.
        dropout: probability, in training only.

    Shape:
        features (B, F) -> Prediction: (B, 24, 3, 3), (B, 10), (B, 3)

    Example:
        >>> head = SpinHead(features=32).eval()
        >>> rotmats, betas, cam = head(torch.zeros(2, 32))
        >>> rotmats.shape, betas.shape, cam.shape
        (torch.Size([2, 24, 3, 3]), torch.Size([2, 10]), torch.Size([2, 3]))
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self,
        mean: MeanParams | None = None,
        features: int = FEATURES,
        iterations: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        mean = mean or zero_mean_params()
        self.iterations = iterations
        for name, value in zip(("init_pose", "init_shape", "init_cam"), mean, strict=True):
            self.register_buffer(name, value[None].float().clone())
        state = sum(len(value) for value in mean)
        self.fc1 = nn.Linear(features + state, 1024)
        self.fc2 = nn.Linear(1024, 1024)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)
        self.decpose = nn.Linear(1024, len(mean.pose))
        self.decshape = nn.Linear(1024, len(mean.shape))
        self.deccam = nn.Linear(1024, len(mean.cam))
        for decoder in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(decoder.weight, gain=0.01)

    def forward(self, features: Tensor) -> Prediction:
        """Return the prediction after the last iteration."""
        pose, shape, cam = (
            start.expand(len(features), -1)
            for start in (self.init_pose, self.init_shape, self.init_cam)
        )
        for _ in range(self.iterations):
            hidden = self.drop1(self.fc1(torch.cat([features, pose, shape, cam], dim=1)))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            shape = shape + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return Prediction(rot6d_to_rotmat(pose.reshape(-1, JOINTS, 6)), shape, cam)
