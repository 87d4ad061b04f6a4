"""Embedded data sets as data modules: pictures rendered on the spot, no download."""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, ClassVar, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from depthbal.data.cache import cache_file, cached
from depthbal.data.datamodule import DepthDataModule
from depthbal.data.label_data import SPLITS, Split, automatic_workers
from depthbal.data.pairs import Depth, Image, PairSource
from depthbal.data.rooms.builder import Builder
from depthbal.data.rooms.generate import Stage
from depthbal.errors import ConfigError

Pairs: TypeAlias = NDArray[np.void]
_CHUNK = 64  # pictures a process draws at a time: handing over one costs more than drawing it


class RenderedDataModule(DepthDataModule):
    """Pictures of a drawn world with exact depth, rendered when they are first asked for.

    They depend on `picture_seed` only, so that runs with another `seed` are repetitions on the
    same data; `train`, `val` and `test` share no scene. They are rendered once (about a second for
    a hundred of 160 x 120) and kept in `depthbal/NAME` in the user's cache directory, which may be
    deleted at any time.

    Args:
        n_train: training pictures.
        n_val: validation pictures; 0 for none.
        n_test: test pictures.
        size: (height, width) of the pictures in pixels.
        picture_seed: of the pictures, of all splits.
        cache: keep rendered pictures in the user's cache directory.
        num_workers: the pictures are in memory already, so that 0 is usually best.
        short_side: null takes that of `size`.
        crop_size: null keeps everything.
        depth_size: null takes half of `size`.
        rotation: largest rotation in degrees, either way.
        jitter: largest relative change of brightness, contrast and saturation.
        **kwargs: as for `DepthDataModule`.

    Raises:
        ConfigError: values outside their range.
    """

    world: ClassVar[type[Builder]]

    def __init__(
        self,
        *,
        n_train: int = 480,
        n_val: int = 80,
        n_test: int = 160,
        size: tuple[int, int] = (120, 160),
        picture_seed: int = 0,
        cache: bool = True,
        num_workers: int = 0,
        short_side: int | None = None,
        crop_size: tuple[int, int] | None = None,
        depth_size: tuple[int, int] | None = None,
        rotation: float = 3.0,
        jitter: float = 0.3,
        **kwargs: Any,
    ) -> None:
        height, width = self.size = (int(size[0]), int(size[1]))
        super().__init__(
            num_workers=num_workers,
            short_side=short_side or min(size),
            crop_size=crop_size,
            depth_size=depth_size or (height // 2, width // 2),
            rotation=rotation,
            jitter=jitter,
            val_fraction=0.0,
            **kwargs,
        )
        if min(n_train, n_test) < 1 or min(n_val, picture_seed, self.seed) < 0 or min(size) < 8:
            raise ConfigError(
                "expected n_train and n_test of at least 1, n_val and the seeds of at least 0, a "
                f"size of at least 8 x 8, got {n_train=}, {n_test=}, {n_val=}, {picture_seed=}, "
                f"seed={self.seed}, {size=}"
            )
        self.counts: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        self.picture_seed = picture_seed
        self.cache = cache

    def prepare_data(self) -> None:
        """Render what the cache lacks, in one process per machine, before the others ask for it."""
        if self.cache:
            for split in SPLITS:
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
        name, seed = self.world.name, self.picture_seed
        return f"embedded {name}, {width} x {height} pixels, picture seed {seed}"

    def describe(self) -> dict[str, Any]:
        """Return, JSON-able, what the data are, with what the renderer was asked for."""
        return super().describe() | {
            "size": list(self.size),
            "picture_seed": self.picture_seed,
            "renderer": self.world.version,
        }

    def _source(self, split: Split) -> "RenderedSource":
        count = self.counts[split]
        return RenderedSource(self.world, split, count, self.size, self.picture_seed, self.cache)


room = Stage.picture


class RoomsDataModule(RenderedDataModule):
    """Rendered views into furnished rooms, corridors and halls with exact metric depth.

    Depth is measured along the optical axis (as Kinect and NYU Depth V2 do), 0.7 to 10 m, with a
    long tail like NYU's. Arguments and errors are those of `RenderedDataModule`.

    Example:
        >>> data = RoomsDataModule(n_train=8, n_val=0, n_test=4, size=(24, 32), cache=False)
        >>> data.setup()
        >>> len(data.train_set), data.val_set, len(data.test_set)
        (8, None, 4)
    """

    world = Stage


class RenderedSource(PairSource):
    """The first `count` pictures of a split, in memory, from the cache or freshly rendered."""

    def __init__(
        self,
        world: type[Builder],
        split: Split,
        count: int,
        size: tuple[int, int],
        seed: int,
        cache: bool,
    ) -> None:
        described = json.dumps([world.version, seed, split, count, list(size)])
        self.key = hashlib.sha256(described.encode()).hexdigest()[:32]
        # no two pictures show the same scene
        names = [f"{world.name}/{split}/{index:05d}" for index in range(count)]
        self.names = self.groups = names
        file = cache_file(world.name, f"{self.key}.npz")
        draw = partial(_draw, world, split, count, size, seed)
        if cache:  # what an npz file holds carries a checksum
            self.pairs = cached(file, lambda kept: np.load(kept)["arr_0"], draw, np.savez)
        else:
            self.pairs = draw()

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> tuple[Image, Depth]:
        """Return image and depth of one picture."""
        return self.pairs["image"][index], self.pairs["depth"][index]

    def fingerprint(self) -> str:
        """Return the digest of everything the pictures depend on."""
        return self.key


def _draw(
    world: type[Builder], split: Split, count: int, size: tuple[int, int], seed: int
) -> Pairs:
    layout = [("image", np.uint8, (*size, 3)), ("depth", np.float32, size)]
    workers = automatic_workers() if count > _CHUNK else 0
    with ProcessPoolExecutor(workers or 1, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        many: Any = partial(pool.map, chunksize=_CHUNK) if workers else map
        pictures = many(partial(world.picture, seed, split, size=size), range(count))
        title, hidden = f"Rendering {world.name} ({split})", not Console().is_terminal
        shown = track(pictures, title, count, transient=True, disable=hidden)
        return np.fromiter(shown, np.dtype(layout, align=True), count)
