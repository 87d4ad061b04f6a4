"""The embedded data set as a data module: rooms rendered on the spot, no download."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from depthbal.data.cache import cache_file, cached
from depthbal.data.datamodule import DepthDataModule
from depthbal.data.label_data import automatic_workers
from depthbal.data.loader import single_threaded
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.rooms.generate import random_scene
from depthbal.data.rooms.render import render
from depthbal.errors import ConfigError

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# raised whenever the same seed gives other pictures; part of every fingerprint and cache key
RENDERER_VERSION = 2
_CHUNK = 64  # pictures a process draws at a time; no more are drawn sooner than processes start


class RoomsDataModule(DepthDataModule):
    """Rendered views into furnished rooms, corridors and halls with exact metric depth.

    Depth is measured along the optical axis (as Kinect and NYU Depth V2 do), 0.7 to 10 m, with a
    long tail like NYU's. The pictures depend on `picture_seed` only, so that runs with another
    `seed` are repetitions on the same data; `train`, `val` and `test` share no scene. They are
    rendered once (about a second for a hundred of 160 x 120) and kept in `depthbal/rooms` in the
    user's cache directory, which may be deleted at any time.

    Args:
        n_train: training pictures.
        n_val: validation pictures; 0 for none.
        n_test: test pictures.
        size: (height, width) of the pictures in pixels.
        picture_seed: of the pictures, of all splits.
        seed: of shuffling and augmentation.
        cache: keep rendered pictures in the user's cache directory.
        batch_size: here and below as for `DepthDataModule`.
        num_workers: the pictures are in memory already, so that 0 is usually best.
        short_side: null takes that of `size`.
        crop_size: null keeps everything.
        depth_size: null takes half of `size`.
        rotation: largest rotation in degrees, either way.
        flip: probability of a horizontal flip.
        lighting: standard deviation of the colour shift along ImageNet's principal axes.
        jitter: largest relative change of brightness, contrast and saturation.
        min_depth: metres below which depth counts nowhere.
        max_depth: upper end of the training histogram in metres.
        bin_width: width of the training histogram's bins in metres.

    Raises:
        ConfigError: values outside their range.

    Example:
        >>> data = RoomsDataModule(n_train=8, n_val=0, n_test=4, size=(24, 32), cache=False)
        >>> data.setup()
        >>> len(data.train_set), data.val_set, len(data.test_set)
        (8, None, 4)
    """

    def __init__(
        self,
        *,
        n_train: int = 480,
        n_val: int = 80,
        n_test: int = 160,
        size: tuple[int, int] = (120, 160),
        picture_seed: int = 0,
        seed: int = 0,
        cache: bool = True,
        batch_size: int = 16,
        num_workers: int = 0,
        short_side: int | None = None,
        crop_size: tuple[int, int] | None = None,
        depth_size: tuple[int, int] | None = None,
        rotation: float = 3.0,
        flip: float = 0.5,
        lighting: float = 0.1,
        jitter: float = 0.3,
        min_depth: float = 0.7,
        max_depth: float = 10.0,
        bin_width: float = 0.1,
    ) -> None:
        size = (int(size[0]), int(size[1]))
        if min(size) < 8:
            raise ConfigError(f"expected size (height, width) of at least 8 x 8, got {size}")
        if n_train < 1 or n_test < 1 or min(n_val, picture_seed, seed) < 0:
            raise ConfigError(
                "expected n_train and n_test of at least 1, n_val and the seeds of at least 0, got "
                f"n_train={n_train}, n_val={n_val}, n_test={n_test}, "
                f"picture_seed={picture_seed}, seed={seed}"
            )
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            short_side=min(size) if short_side is None else short_side,
            crop_size=crop_size,
            depth_size=depth_size or (size[0] // 2, size[1] // 2),
            rotation=rotation,
            flip=flip,
            lighting=lighting,
            jitter=jitter,
            min_depth=min_depth,
            max_depth=max_depth,
            bin_width=bin_width,
            val_fraction=0.0,
        )
        self.counts: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        self.size = size
        self.picture_seed = picture_seed
        self.cache = cache

    def prepare_data(self) -> None:
        """Render what the cache lacks, in one process per machine, before the others ask for it."""
        if self.cache:
            for split, count in self.counts.items():
                if count:
                    self._source(split)

    def train_source(self) -> PairSource:
        """Return the training pictures."""
        return self._source("train")

    def val_source(self) -> PairSource | None:
        """Return the validation pictures, or None if `n_val` is 0."""
        return self._source("val") if self.counts["val"] else None

    def test_source(self) -> PairSource:
        """Return the test pictures."""
        return self._source("test")

    def source_name(self) -> str:
        """Return what these pictures are, for people."""
        height, width = self.size
        return f"embedded rooms, {width} x {height} pixels, picture seed {self.picture_seed}"

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are, with what the renderer was asked for."""
        return super().describe() | {
            "size": list(self.size),
            "picture_seed": self.picture_seed,
            "renderer": RENDERER_VERSION,
        }

    def _source(self, split: Split) -> PairSource:
        return rooms_source(
            split,
            self.counts[split],
            size=self.size,
            seed=self.picture_seed,
            workers=automatic_workers(),
            cache=self.cache,
        )


def room(seed: int, split: Split, index: int, size: tuple[int, int]) -> tuple[Image, Depth]:
    """Return one picture: image uint8 (H, W, 3) RGB and z-depth float32 (H, W) in metres.

    It depends on the arguments only, not on other pictures, the process or the machine. (Another
    CPU or NumPy release may round a pixel's last bit differently.)

    Args:
        seed: of the whole data set, at least 0.
        split: "train", "val" or "test"; no two splits share a picture.
        index: number of the picture in its split, at least 0.
        size: (height, width) in pixels.

    Example:
        >>> image, depth = room(seed=0, split="train", index=0, size=(24, 32))
        >>> image.shape, image.dtype, depth.shape, depth.dtype
        ((24, 32, 3), dtype('uint8'), (24, 32), dtype('float32'))
    """
    key = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    rng = np.random.default_rng(key)
    return render(random_scene(rng, size), rng)


class RoomsSource(PairSource):
    """The rendered pictures of one split, held in memory; each is a scene of its own.

    Args:
        images: uint8 (N, H, W, 3) RGB.
        depths: float32 (N, H, W) in metres, 0 = no depth.
        split: which split they are.
        key: a digest of all that they depend on.
    """

    def __init__(self, images: Image, depths: Depth, split: Split, key: str) -> None:
        self.images = images
        self.depths = depths
        self.split = split
        self.key = key

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image and depth of one picture."""
        return self.images[index], self.depths[index]

    def name(self, index: int) -> str:
        """Return, for example, `rooms/train/00012`."""
        return f"rooms/{self.split}/{index:05d}"

    def group(self, index: int) -> str:
        """Return the scene's name: no two pictures show the same scene."""
        return self.name(index)

    def fingerprint(self) -> str:
        """Return the digest of everything the pictures depend on."""
        return self.key


def rooms_source(
    split: Split,
    count: int,
    *,
    size: tuple[int, int] = (120, 160),
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
    cache: bool = True,
) -> RoomsSource:
    """Return the first `count` pictures of a split, from the cache or freshly rendered.

    Args:
        split: "train", "val" or "test".
        count: number of pictures.
        size: (height, width) in pixels.
        seed: of the pictures.
        workers: processes that render; 0 renders in this one.
        progress: show a progress bar.
        cache: read and write the cache directory.

    Example:
        >>> source = rooms_source("test", 2, size=(24, 32), progress=False, cache=False)
        >>> len(source), source.name(1)
        (2, 'rooms/test/00001')
    """
    described = json.dumps([RENDERER_VERSION, seed, split, count, list(size)])
    key = hashlib.sha256(described.encode()).hexdigest()[:32]

    def load(file: Path) -> tuple[Image, Depth]:
        with np.load(file, allow_pickle=False) as stored:  # every member carries a checksum
            return stored["images"], stored["depths"]

    def draw() -> tuple[Image, Depth]:
        images = np.empty((count, *size, 3), np.uint8)
        depths = np.empty((count, *size), np.float32)
        # chunks, because handing over a small picture costs more than drawing it
        loader: Any = DataLoader(
            range(count),  # type: ignore[arg-type]
            batch_size=_CHUNK,
            num_workers=workers if count > _CHUNK else 0,
            collate_fn=partial(_draw, seed, split, size),
            worker_init_fn=single_threaded,
        )
        title, shown = f"Rendering rooms ({split})", progress and Console().is_terminal
        for number, pictures in enumerate(track(loader, title, transient=True, disable=not shown)):
            at = slice(number * _CHUNK, (number + 1) * _CHUNK)
            images[at], depths[at] = pictures
        return images, depths

    def save(file: Path, pictures: tuple[Image, Depth]) -> None:
        np.savez(file, images=pictures[0], depths=pictures[1])

    file = cache_file("rooms", f"{key}.npz")
    images, depths = cached(file, load, draw, save) if cache else draw()
    return RoomsSource(images, depths, split, key)


def _draw(
    seed: int, split: Split, size: tuple[int, int], numbers: list[int]
) -> tuple[Image, Depth]:
    images, depths = zip(*(room(seed, split, number, size) for number in numbers), strict=True)
    return np.stack(images), np.stack(depths)
