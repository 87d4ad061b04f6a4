"""SPIN's image crops and their random changes in training, poses included."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD

SIZE = 224
FLIPPED_JOINTS = [
    *(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10),
    *(12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22),
]
"""The joint of the mirrored body that each SMPL joint becomes."""


class Change(NamedTuple):
    """A change of a training sample: mirrored, factors of the channels, turn in degrees, zoom."""

    flip: bool = False
    channels: tuple[float, ...] = (1.0, 1.0, 1.0)
    rotation: float = 0.0
    scale: float = 1.0


def draw_change(generator: np.random.Generator) -> Change:
    """Draw a change as published (SPIN, datasets/base_dataset.py)."""
    channels = tuple(generator.uniform(0.6, 1.4, 3).tolist())
    rotation = float(np.clip(generator.normal(0.0, 30.0), -60.0, 60.0))
    flip = bool(generator.uniform() <= 0.5)
    rotation = 0.0 if generator.uniform() <= 0.6 else rotation
    return Change(flip, channels, rotation, float(np.clip(generator.normal(1, 0.25), 0.75, 1.25)))


def crop_corners(center: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    """Return the corners ((x, y), (x, y)) of a box of 200 scale pixels, cut to whole ones."""
    side = 200.0 * scale
    to_crop = np.eye(3)
    to_crop[0, 0] = to_crop[1, 1] = SIZE / side
    to_crop[:2, 2] = SIZE * (0.5 - np.asarray(center, dtype=np.float64) / side)
    # through the matrix as published: rounding decides where a corner is a whole number
    corners = np.linalg.inv(to_crop) @ np.array([[0, SIZE], [0, SIZE], [1, 1]], dtype=np.float64)
    return corners[:2].T.astype(np.int64)


def crop_image(
    image: NDArray[np.uint8],
    center: NDArray[np.float64],
    scale: float,
    change: Change = Change(),  # noqa: B008 - a tuple, which nobody can change
) -> Tensor:
    """Return the normalised crop (3, 224, 224) of a person in an RGB image (H, W, 3)."""
    # contrast stays that of the picture, where SPIN's scipy.misc stretched every crop to 0 and 255
    upper, lower = crop_corners(center, scale * change.scale)
    width, height = np.maximum(lower - upper, 1).tolist()
    middle = upper + np.array([(width - 1) / 2, (height - 1) / 2])
    turn = cv2.getRotationMatrix2D(middle.tolist(), change.rotation, 1.0)
    turn[:, 2] -= upper
    window = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)
    if change.flip:
        window = window[:, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)))[None].float()
    pixels = functional.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    channels, mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (change.channels, IMAGENET_MEAN, IMAGENET_STD)
    )
    return ((pixels.round() * channels).clamp(0, 255) / 255 - mean) / std


def change_pose(pose: NDArray[np.float32], change: Change) -> NDArray[np.float32]:
    """Return the pose (72,) of the body in the changed picture: turned at the root, mirrored."""
    joints = pose.reshape(24, 3).astype(np.float64)
    if change.rotation:
        turn = cv2.Rodrigues(np.array([0.0, 0.0, np.deg2rad(-change.rotation)]))[0]
        joints[0] = cv2.Rodrigues(turn @ cv2.Rodrigues(joints[0])[0])[0][:, 0]
    if change.flip:
        joints = joints[FLIPPED_JOINTS] * [1.0, -1.0, -1.0]
    return joints.reshape(72).astype(np.float32)
