"""The pre-processing of the published age benchmarks."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from depthbal.data.images import normalise
from depthbal.data.pairs import Image
from depthbal.data.transforms import generators, shift_and_flip
from depthbal.errors import ConfigError

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class ImageTransform:
    """Resize to a square, shift and flip at random, normalise to [-1, 1].

    As published: 224 x 224 pixels by Pillow's bilinear filter, which widens where it shrinks; in
    training a random crop of as many after a black border of 16 and a horizontal flip (Yang et al.,
    "Delving into Deep Imbalanced Regression", ICML 2021).

    Args:
        size: pixels of either side.
        padding: width of the border, which is the largest shift; 0 for none.
        flip: probability of a horizontal flip; 0 for none.

    Raises:
        ConfigError: values outside their range.

    Example:
        >>> import numpy as np
        >>> ImageTransform(size=32, padding=2, flip=0.5)(np.zeros((50, 40, 3), np.uint8), 7).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, size: int = 224, padding: int = 0, flip: float = 0.0) -> None:
        if size < 1 or padding < 0 or not 0 <= flip <= 1:
            raise ConfigError(
                "expected --data.image_size of at least 1, --data.padding of at least 0 and "
                f"--data.flip in [0, 1], got {size}, {padding} and {flip:g}"
            )
        self.size = size
        self.augment = shift_and_flip(size, padding, flip)

    def __call__(self, image: Image, seed: int) -> Tensor:
        """Return float32 (3, size, size) for uint8 (H, W, 3); the same seed gives the same."""
        if image.shape[:2] != (self.size, self.size):
            image = _resize(image, self.size)
        if self.augment is not None:
            self.augment.set_random_state(*generators(seed))
            image = self.augment(image=image)["image"]
        return normalise(image, MEAN, STD)


def _resize(image: Image, size: int) -> Image:
    """Return uint8 (size, size, 3), as torchvision's Resize of a Pillow image gives it."""
    pixels = torch.tensor(image).permute(2, 0, 1)[None]
    resized = interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0]
    return resized.permute(1, 2, 0).numpy()
