"""The embedded data set: drawn faces whose age can only be guessed, with AgeDB's counts per age."""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthbal.adapters.age.data import LabelledData, LabelledImages
from depthbal.data.label_data import SPLITS, Split
from depthbal.data.pairs import Image

# Images per age, 0 to 101 years, of the published AgeDB-DIR splits (Yang et al., "Delving into Deep
# Imbalanced Regression", ICML 2021; code under the MIT licence).
TRAIN = """
0 1 0 4 2 2 4 5 4 2 5 8 6 8 9 15 18 28 60 50 101 103 123 152 199 224 215 244 287 253 325 256 318
278 302 353 287 310 322 261 326 260 296 265 221 282 227 229 251 207 257 227 250 190 198 234 167
183 186 153 185 147 178 158 133 171 117 117 155 90 156 85 115 96 78 98 49 44 46 26 31 26 24 19 15
20 13 10 7 7 7 7 5 5 3 3 2 1 2 1 2 1
"""
HELD_OUT = """
0 0 0 2 0 1 2 3 2 2 4 6 4 7 7 14 17 27 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30
30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30 30
30 30 30 30 30 30 30 30 25 30 25 22 19 14 19 11 10 7 6 6 5 3 5 2 3 0 0 0 0 0 0
"""
Floats = NDArray[np.float32]
SKIN = np.array(((96, 60, 42), (244, 208, 177)), np.float32)  # dark and light
HAIR = np.array(((30, 24, 20), (180, 140, 80), (225, 225, 230)), np.float32)  # and grey


class DrawnAgesDataModule(LabelledData):
    """Faces of nobody, drawn on the spot, whose age can only be guessed; no download.

    The labels are as many of each age as in AgeDB-DIR's three published splits (12,208, 2,140 and
    2,140). A picture shows how old somebody looks, which is `apparent` years off by one standard
    deviation, so that the best guess depends on how frequent ages are: what imbalance is about.

    Args:
        apparent: standard deviation in years between the age and how old somebody looks.
        cues: standard deviation in years of every single cue (hair, shape, eyes, wrinkles, ...).
        picture_seed: of the pictures; runs with another `seed` are repetitions on the same data.
        **kwargs: as for `LabelledData`.

    Example:
        >>> DrawnAgesDataModule().train_histogram().total
        12208.0
    """

    def __init__(
        self,
        *,
        apparent: float = 8.0,
        cues: float = 6.0,
        picture_seed: int = 0,
        image_size: int = 32,
        padding: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, padding=padding, **kwargs)
        self.apparent, self.cues, self.picture_seed = apparent, cues, picture_seed

    def labels(self, split: Split) -> list[Tensor]:
        """Return the ages of a split in one tensor, (N,) float64, increasing."""
        counts = torch.tensor([int(n) for n in (TRAIN if split == "train" else HELD_OUT).split()])
        return [torch.arange(len(counts)).double().repeat_interleave(counts)]

    def dataset(self, split: Split) -> LabelledImages:
        """Return the faces of a split, drawn now."""
        ages = self.labels(split)[0].numpy()
        rng = np.random.default_rng((self.picture_seed, SPLITS.index(split)))
        looks = ages[:, None] + self.apparent * rng.standard_normal((len(ages), 1))
        looks = looks + self.cues * rng.standard_normal((len(ages), 5))
        parts = np.array_split(looks.astype(np.float32), 1 + len(looks) // 100)  # fit a CPU's cache
        images = np.concatenate([draw_faces(part, self.image_size, rng) for part in parts])
        names = [f"faces/{split}/{index:05d}" for index in range(len(ages))]
        content = hashlib.sha256(images.tobytes()).hexdigest()
        return LabelledImages(self, split, images, names, content, grouped=True)  # all different


def draw_faces(looks: Floats, size: int, rng: np.random.Generator) -> Image:
    """Return faces, uint8 (N, size, size, 3) RGB, that look as old as they are told to.

    Hair turns grey and recedes, the round head of a child grows long, eyes get smaller, wrinkles
    deepen: the five ages of `looks` (N, 5). Everything else tells nothing.
    """
    grey, hairline, shape, eyes, wrinkles = looks.clip(-40, 140).T[..., None, None]

    def between(low: float, high: float, *channels: int) -> Floats:
        return rng.uniform(low, high, (len(looks), 1, 1, *channels)).astype(np.float32)

    def ellipse(left: float, top: float, wide: Any, high: Any) -> Any:
        """Return 1 inside, 0 outside, and what the edge covers of a pixel between."""
        inside = 1 - np.hypot((x - left) / wide, (y - top) / high)
        return (inside * np.minimum(wide, high) / pixel + 0.5).clip(0, 1)

    pixel = 2.2 / (size * between(0.8, 0.92))
    place = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x = (place[None, :] - size * between(-0.05, 0.05)) * pixel
    y = (place[:, None] - size * between(-0.01, 0.07)) * pixel
    long = 0.8 + 0.25 / (1 + np.exp((8 - shape) / 14)) + 0.001 * shape
    head = ellipse(0, 0, 0.75, long)
    fringe = head * ((-0.35 - 0.0045 * hairline - y) / pixel + 0.5).clip(0, 1)
    lines = head * (np.sin(y * 40) > 0.3) * (abs(x) < 0.5) * (y < -0.2)
    wide, high = 0.19 - 0.0009 * eyes, 0.15 - 0.001 * eyes
    light = between(0.75, 1.05, 1)
    skin = light * (SKIN[0] + between(0, 1, 1) * (SKIN[1] - SKIN[0]))
    old = 1 / (1 + np.exp((50 - grey[..., None]) / 15))
    hair = light * ((1 - old) * (HAIR[0] + between(0, 1, 1) * (HAIR[1] - HAIR[0])) + old * HAIR[2])
    picture = between(40, 230, 3)
    for mask, ink in (
        (ellipse(0, -0.1, 0.87, long + 0.1), hair),
        (head, skin),
        (lines * (0.1 + 0.008 * wrinkles).clip(0, 1), 0.4 * skin),
        (fringe, hair),
        (ellipse(-0.33, 0, wide, high) + ellipse(0.33, 0, wide, high), np.float32(245)),
        (ellipse(-0.33, 0, wide / 2, high) + ellipse(0.33, 0, wide / 2, high), np.float32(30)),
        (ellipse(0, 0.5, 0.2, 0.06), 0.5 * skin),
    ):
        picture = picture + mask[..., None] * (ink - picture)
    noisy = picture + 4 * rng.standard_normal(picture.shape, np.float32)
    faces: Image = noisy.round().clip(0, 255).astype(np.uint8)
    return faces
