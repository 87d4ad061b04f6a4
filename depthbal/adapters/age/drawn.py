"""The embedded data set: drawn faces whose age can only be guessed, with AgeDB's counts per age."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthbal.adapters.age.data import SPLITS, LabelledData, Labels, Samples
from depthbal.data.label_data import Split
from depthbal.data.pairs import Image

# Images per age, 0 to 101 years, of the published AgeDB-DIR splits (Yang et al., "Delving into Deep
# Imbalanced Regression", ICML 2021; code under the MIT licence).
# fmt: off
TRAIN = (
    0, 1, 0, 4, 2, 2, 4, 5, 4, 2, 5, 8, 6, 8, 9, 15, 18, 28, 60, 50, 101, 103, 123, 152, 199, 224,
    215, 244, 287, 253, 325, 256, 318, 278, 302, 353, 287, 310, 322, 261, 326, 260, 296, 265, 221,
    282, 227, 229, 251, 207, 257, 227, 250, 190, 198, 234, 167, 183, 186, 153, 185, 147, 178, 158,
    133, 171, 117, 117, 155, 90, 156, 85, 115, 96, 78, 98, 49, 44, 46, 26, 31, 26, 24, 19, 15, 20,
    13, 10, 7, 7, 7, 7, 5, 5, 3, 3, 2, 1, 2, 1, 2, 1,
)
HELD_OUT = (
    0, 0, 0, 2, 0, 1, 2, 3, 2, 2, 4, 6, 4, 7, 7, 14, 17, 27, *(30,) * 61, 25, 30, 25, 22, 19, 14,
    19, 11, 10, 7, 6, 6, 5, 3, 5, 2, 3, 0, 0, 0, 0, 0, 0,
)
# fmt: on
SKIN = np.array(((96, 60, 42), (244, 208, 177)), np.float32)
HAIR = np.array(((30, 24, 20), (180, 140, 80), (225, 225, 230)), np.float32)
_CHUNK = 128  # pictures that are drawn at a time

Floats = NDArray[np.float32]


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
        >>> data = DrawnAgesDataModule()
        >>> data.train_histogram().total, data.label_range()
        (12208.0, (0.5, 101.5))
    """

    def __init__(
        self,
        *,
        apparent: float = 8.0,
        cues: float = 6.0,
        picture_seed: int = 0,
        image_size: int = 32,
        padding: int = 2,
        batch_size: int = 128,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        sizes = {"image_size": image_size, "padding": padding, "batch_size": batch_size}
        super().__init__(num_workers=num_workers, **sizes, **kwargs)
        self.apparent, self.cues, self.picture_seed = apparent, cues, picture_seed

    def all_labels(self, split: Split) -> Labels:
        """Return the ages of a split, (N,), in increasing order."""
        counts = TRAIN if split == "train" else HELD_OUT
        return np.repeat(np.arange(len(counts), dtype=np.float64), counts)

    def samples(self, split: Split) -> Samples:
        """Return the faces of a split."""
        ages = self.all_labels(split)
        rng = np.random.default_rng((self.picture_seed, SPLITS.index(split)))
        looks = ages[:, None] + self.apparent * rng.standard_normal((len(ages), 1))
        looks = looks + self.cues * rng.standard_normal((len(ages), 5))
        parts = np.array_split(looks.astype(np.float32), -(-len(ages) // _CHUNK))
        images = np.concatenate([draw_faces(part, self.image_size, rng) for part in parts])
        names = [f"faces/{split}/{index:05d}" for index in range(len(ages))]
        content = hashlib.sha256(images.tobytes() + ages.tobytes()).hexdigest()
        return Samples(images, ages, names, content, independent=True)


def draw_faces(looks: Floats, size: int, rng: np.random.Generator) -> Image:
    """Return faces, uint8 (N, size, size, 3) RGB, that look as old as they are told to.

    Hair turns grey and recedes, the round head of a child grows long, eyes get smaller, wrinkles
    deepen. Skin, hair colour, background, light, place and mouth tell nothing.

    Args:
        looks: (N, 5), age in years by hair colour, shape, eyes, wrinkles and hairline.
        size: pixels of either side.
        rng: where everything else comes from.
    """
    grey, shape, eyes, wrinkles, hairline = looks.clip(-40, 140).T[..., None, None]

    def between(low: Any, high: Any, *channels: int) -> Floats:
        return rng.uniform(low, high, (len(looks), 1, 1, *channels)).astype(np.float32)

    unit = 2.2 / (size * between(0.8, 0.92))  # of a pixel's side
    place = np.arange(size, dtype=np.float32) - (size - 1) / 2
    x = (place[None, :] - size * between(-0.05, 0.05)) * unit
    y = (place[:, None] - size * between(-0.01, 0.07)) * unit
    light = between(0.75, 1.05, 1)
    skin = light * (SKIN[0] + between(0, 1, 1) * (SKIN[1] - SKIN[0]))
    old = 1 / (1 + np.exp((50 - grey[..., None]) / 15))
    hair = light * ((1 - old) * (HAIR[0] + between(0, 1, 1) * (HAIR[1] - HAIR[0])) + old * HAIR[2])

    def ellipse(left: float, top: Any, wide: Any, high: Any) -> Floats:
        """Return 1 inside, 0 outside, and what the edge covers of a pixel between."""
        far = np.hypot((x - left) / wide, (y - top) / high)
        return ((1 - far) * np.minimum(wide, high) / unit + 0.5).clip(0, 1)

    long = 0.8 + 0.25 / (1 + np.exp((8 - shape) / 14)) + 0.001 * shape
    broad = 0.8 - 0.0012 * shape
    head = ellipse(0, 0, broad, long)
    lines = head * (np.sin(y * 40) > 0.3) * (abs(x) < 0.5) * (y < -0.2)
    lines = lines + ellipse(-0.33, 0.12, 0.2, 0.08) + ellipse(0.33, 0.12, 0.2, 0.08)
    fringe = head * (((0.62 - 0.0045 * hairline) * long - long - y) / unit + 0.5).clip(0, 1)
    white, dark = (
        ellipse(-0.33, -0.02, a, b) + ellipse(0.33, -0.02, a, b)
        for a, b in (
            (0.19 - 0.0009 * eyes, 0.15 - 0.001 * eyes),
            (0.09 - 0.0006 * eyes, 0.11 - 0.00075 * eyes),
        )
    )
    picture = between(40, 230, 3)
    for mask, ink in (
        (ellipse(0, -0.1, broad + 0.12, long + 0.1), hair),
        (head, skin),
        (lines * (0.1 + 0.008 * wrinkles).clip(0, 1), 0.4 * skin),
        (fringe, hair),
        (white, np.float32(245)),
        (dark, np.float32(30)),
        (ellipse(0, 0.55 * long, between(0.15, 0.3), between(0.03, 0.1)), 0.5 * skin),
    ):
        picture = picture + mask[..., None] * (ink - picture)
    noisy = picture + 4 * rng.standard_normal(picture.shape, np.float32)
    return noisy.round().clip(0, 255).astype(np.uint8)
