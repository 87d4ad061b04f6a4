"""The pre-processing of the published age benchmarks."""

import cv2
from torch import Tensor

from depthbal.data.images import normalise
from depthbal.data.pairs import Image
from depthbal.data.transforms import generators, shift_and_flip
from depthbal.errors import ConfigError

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class ImageTransform:
    """Resize to a square, shift and flip at random, normalise to [-1, 1].

    As published: 224 x 224 pixels; in training a random crop of as many after a black border of 16
    and a horizontal flip (Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021).

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
            # areas where it shrinks to less than half: two samples per pixel would alias
            shrinks = min(image.shape[:2]) > 2 * self.size
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, (self.size, self.size), interpolation=method)
        if self.augment is not None:
            self.augment.set_random_state(*generators(seed))
            image = self.augment(image=image)["image"]
        return normalise(image, MEAN, STD)
