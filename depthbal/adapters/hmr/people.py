"""People in pictures with their bodies: rows of one or several SPIN files end to end."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from depthbal.adapters.hmr.crops import SIZE, Augmentation, change_pose, crop_image
from depthbal.data.dataset import SeededDataset
from depthbal.data.images import read_image
from depthbal.data.sampler import PADDING

POSE, BETAS = 72, 10
"""Axis-angle numbers of 24 joints, the root first; shape coefficients."""


@dataclass(frozen=True)
class People:
    """Columns of equal length N.

    Args:
        files: Pictures' paths, as texts.
        center: (N, 2) middle of the box in pixels.
        scale: (N,) side of the box in units of 200 pixels.
        pose: (N, 72) axis-angle, radians; 0 where unknown.
        betas: (N, 10) shape coefficients; 0 where unknown.
        valid: (N,) True where the body may be learned from.
        gender: (N,) 0 male, 1 female, -1 unknown.
        group: (N,) name of the data set.
    """

    files: NDArray[np.str_]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    pose: NDArray[np.float32]
    betas: NDArray[np.float32]
    valid: NDArray[np.bool_]
    gender: NDArray[np.int64]
    group: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the people of several data sets end to end."""
        columns = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(p, column) for p in parts]) for column in columns))

    def rows(self, chosen: Any) -> Self:
        """Return some of the people, by indices or a mask."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def fingerprint(self) -> str:
        """Return a hex digest of all columns but the place of the pictures' folder."""
        names = [f"{Path(file).name}" for file in self.files.tolist()]
        digest = hashlib.sha256("\n".join(names).encode())
        for field in fields(self)[1:]:
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()[:32]


class PeopleDataset(SeededDataset[dict[str, Any]]):
    """Samples for training, validation and test.

    ``input``: image (3, 224, 224), normalised, or its features (F,); ``pose`` (72,) axis-angle;
    ``betas`` (10,); ``valid`` whether the body counts; ``gender``; ``index``.

    Args:
        people: Whose pictures.
        seed: Of the augmentation.
        augment: Change crops and poses at random; not with features.
        features: (N, F), or None to give the images.
    """

    def __init__(
        self,
        people: People,
        seed: int = 0,
        augment: bool = False,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(seed)
        self.people, self.augment, self.features = people, augment, features

    def __len__(self) -> int:
        return len(self.people)

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return a sample; the picture is read only where there are no features."""
        people, pose = self.people, self.people.pose[index]
        if self.features is not None:
            network_input = torch.from_numpy(np.array(self.features[index], dtype=np.float32))
        else:
            change = Augmentation.draw(np.random.default_rng(seed)) if self.augment else None
            image = read_image(str(people.files[index]))
            scale = float(people.scale[index])
            network_input = crop_image(image, people.center[index], scale, change)
            pose = pose if change is None else change_pose(pose, change)
        return {
            "input": network_input,
            "pose": torch.from_numpy(pose.copy()),
            "betas": torch.from_numpy(people.betas[index]),
            "valid": bool(people.valid[index]),
            "gender": int(people.gender[index]),
            "index": index,
        }

    def padding(self) -> dict[str, Any]:
        """Return a sample without a body."""
        shape = (3, SIZE, SIZE) if self.features is None else self.features.shape[1:]
        return {
            "input": torch.zeros(shape),
            "pose": torch.zeros(POSE),
            "betas": torch.zeros(BETAS),
            "valid": False,
            "gender": -1,
            "index": PADDING,
        }
