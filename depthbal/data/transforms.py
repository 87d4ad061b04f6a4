"""The pre-processing of the published NYUD2-DIR recipe, on albumentations."""

import math
import os
import random
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from depthbal.data.images import Depth, Image, normalise, resize_depth, resize_short_side
from depthbal.errors import ConfigError, DataError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the network

import albumentations as A
import cv2

# Eigenvalues and eigenvectors (columns) of the RGB covariance of ImageNet, for values in 0 to 1:
# Krizhevsky et al., "ImageNet Classification with Deep CNNs", NIPS 2012, section 4.1.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)

Size = tuple[int, int]


class Lighting(A.ImageOnlyTransform):  # type: ignore[misc]
    """Shift a uint8 image along ImageNet's colour axes: image + 255 V (a lambda), a ~ N(0, std)."""

    def __init__(self, std: float = 0.1, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.std = std

    def get_params(self) -> dict[str, Any]:
        """Draw the strengths of the three axes."""
        strengths = self.random_generator.normal(0.0, self.std, 3)
        return {"shift": 255.0 * _EIGENVECTORS @ (strengths * _EIGENVALUES)}

    def apply(self, img: Image, shift: NDArray[np.float64], **_: Any) -> Image:
        """Add the shift to every pixel."""
        table = np.clip(np.rint(np.arange(256)[None, :, None] + shift), 0, 255).astype(np.uint8)
        lit: Image = cv2.LUT(img, table)
        return lit


class EvalTransform:
    """Deterministic pre-processing: resize to a short side, crop, normalise.

    Args:
        short_side: pixels of the shorter side after resizing; None keeps the size.
        crop_size: (height, width) of the crop; None keeps everything.
        crop_at: where it lies: in the centre, or at the bottom of the middle columns, which is
            the crop of KITTI's benchmark.
        depth_size: (height, width) the depth map is then resampled to, or the share of its sides
            that is kept, rounded up; None keeps it.
        none: what stands in maps where there is no depth.

    Raises:
        ConfigError: sizes that are not positive.
        DataError: on a call, when the image is smaller than the crop.

    Example:
        >>> image, depth = np.zeros((480, 640, 3), np.uint8), np.ones((480, 640), np.float32)
        >>> pixels, metres = EvalTransform()(image, depth)
        >>> tuple(pixels.shape), tuple(metres.shape)
        ((3, 228, 304), (1, 228, 304))
    """

    def __init__(
        self,
        short_side: int | None = 240,
        crop_size: Size | None = (228, 304),
        depth_size: Size | float | None = None,
        crop_at: Literal["centre", "bottom"] = "centre",
        none: float = 0.0,
    ) -> None:
        sizes = {"short_side": short_side, "crop_size": crop_size, "depth_size": depth_size}
        for name, value in sizes.items():
            if value is not None and not np.all(np.asarray(value) > 0):
                raise ConfigError(f"expected {name} to be positive, got {value}")
        self.short_side, self.crop_at, self.none = short_side, crop_at, none
        self.crop_size = None if crop_size is None else tuple(crop_size)
        self.depth_size = tuple(depth_size) if isinstance(depth_size, Sequence) else depth_size

    def __call__(self, image: Image, depth: Depth, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return image float32 (3, H, W), normalised, and depth float32 (1, h, w) in metres."""
        return normalise(self.crop(self.resize(image, nearest=False))), self.depth(depth)

    def whole(self, image: Image, depth: Depth, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return the image uncropped, and the truth at its file's own size."""
        return normalise(self.resize(image, nearest=False)), from_numpy(depth)[None]

    def depth(self, depth: Depth) -> Tensor:
        """Return the depth float32 (1, h, w) that goes with the pre-processed image."""
        return self.shrink(self.crop(self.resize(depth, nearest=True)))

    def resize(self, array: NDArray[Any], nearest: bool) -> NDArray[Any]:
        """Resize to the short side; depth must be resized with ``nearest=True``."""
        return resize_short_side(array, self.short_side, nearest, self.none)

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """Cut the crop out of an image or depth map."""
        if self.crop_size is None:
            return array
        (height, width), (new_height, new_width) = array.shape[:2], self.crop_size
        if height < new_height or width < new_width:
            raise DataError(
                f"the crop of {new_height} x {new_width} is larger than the image, {height} x "
                f"{width} after resizing to short side {self.short_side}; set another crop_size"
            )
        left, top = (width - new_width) // 2, height - new_height
        top //= 1 if self.crop_at == "bottom" else 2
        return array[top : top + new_height, left : left + new_width]

    def share(self, shape: tuple[int, ...]) -> float:
        """Return the share of a picture of (height, width) that the crop leaves."""
        short = self.short_side or min(shape)
        sides = [round(extent * short / min(shape)) for extent in shape]
        return min(1.0, math.prod(self.crop_size or sides) / math.prod(sides))

    def shrink(self, depth: Depth) -> Tensor:
        """Resample cropped depth to `depth_size` by its nearest pixels; returns (1, h, w)."""
        size: Any = depth.shape if self.depth_size is None else self.depth_size
        if isinstance(size, float):
            size = tuple(math.ceil(size * side) for side in depth.shape)
        return from_numpy(np.ascontiguousarray(resize_depth(depth, size, self.none)))[None]


class TrainTransform:
    """The published training pre-processing, seeded per call.

    In this order: short side, horizontal flip, rotation by U(-rotation, rotation) degrees,
    crop, depth to its own size, lighting noise, colour jitter (brightness, contrast, saturation in
    random order; in 8 bit, ending at black and white), normalisation. Depth is always resampled by
    nearest neighbour; corners that the rotation leaves empty become black and have no depth.
    Arguments and errors are those of `EvalTransform` and `DepthDataModule`.
    """

    def __init__(
        self,
        short_side: int | None = 240,
        crop_size: Size | None = (228, 304),
        depth_size: Size | float | None = (114, 152),
        rotation: float = 5.0,
        flip: float = 0.5,
        lighting: float = 0.1,
        jitter: float = 0.4,
        crop_at: Literal["centre", "bottom"] = "centre",
        none: float = 0.0,
    ) -> None:
        self.sizes = EvalTransform(short_side, crop_size, depth_size, crop_at, none)
        # its defaults: bilinear, depth by nearest neighbour, corners of images left empty become 0
        rotate = A.Rotate(limit=(-rotation, rotation), fill_mask=none, p=1.0)
        brightness = A.ColorJitter(jitter, jitter, jitter, hue=0.0, p=1.0)
        self.geometry = _compose((flip, A.HorizontalFlip(p=flip)), (rotation, rotate))
        self.colour = _compose((lighting, Lighting(lighting)), (jitter, brightness))

    def __call__(self, image: Image, depth: Depth, seed: int) -> tuple[Tensor, Tensor]:
        """Return image float32 (3, H, W), normalised, and depth float32 (1, h, w) in metres."""
        state = generators(seed)
        sizes = self.sizes
        both = {"image": sizes.resize(image, nearest=False), "mask": sizes.resize(depth, True)}
        if self.geometry is not None:
            self.geometry.set_random_state(*state)
            both = self.geometry(**both)
        pixels = sizes.crop(both["image"])
        if self.colour is not None:
            self.colour.set_random_state(*state)
            pixels = self.colour(image=pixels)["image"]
        return normalise(pixels), sizes.shrink(sizes.crop(both["mask"]))


def generators(seed: int) -> tuple[np.random.Generator, random.Random]:
    """Return the generators of one call, for `set_random_state` of all its steps."""
    # Given a seed alone, albumentations would restart every step with it: one number for all.
    return np.random.default_rng(seed), random.Random(seed)


def shift_and_flip(size: int, padding: int, flip: float) -> Any:
    """Return random shifts by up to `padding` black pixels, and flips; None for neither."""
    pad, crop = A.Pad(padding, fill=0), A.RandomCrop(size, size)
    return _compose((padding, pad), (padding, crop), (flip, A.HorizontalFlip(p=flip)))


def _compose(*steps: tuple[float, Any]) -> Any:
    """Return the steps whose strength is not 0 as one; None for none."""
    chosen = [step for strength, step in steps if strength]
    return A.Compose(chosen) if chosen else None
