"""Small data sets on disk, made of numbers that the tests know."""

from pathlib import Path

import cv2
import h5py
import numpy as np

from depthbal.data import DepthDataModule, PairSource


def ramp_depth(height: int, width: int, index: int = 0) -> np.ndarray:
    """Depth in metres that grows from 1 m to about 9 m to the right, shifted a little by index."""
    row = 1.0 + 8.0 * np.arange(width) / width + 0.05 * index
    return np.broadcast_to(row, (height, width)).astype(np.float32)


def grey_image(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_file(path: Path, content: np.ndarray | bytes) -> None:
    """Write bytes as they are, and an array (colours as RGB) as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, depth=content, confidence=np.ones(3))
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            file["dataset"] = content
    else:
        colours = content.ndim == 3 and content.shape[2] == 3
        assert cv2.imwrite(str(path), content[..., ::-1] if colours else content)


def pfm(array: np.ndarray, order: str, scale: float, kind: str = "Pf") -> bytes:
    """The bytes of a PFM file as its makers describe them: rows from the lowest to the highest."""
    height, width = array.shape[:2]
    header = f"{kind}\n{width} {height}\n{'-' * (order == '<')}{scale}\n".encode()
    return header + array[::-1].astype(f"{order}f4").tobytes()


def write_nyud2(
    root: Path, scenes: int = 12, per_scene: int = 2, n_test: int = 3, size: tuple = (24, 32)
) -> Path:
    """Write the published layout; returns the folder with the csv files."""
    data = root / "data"
    data.mkdir(parents=True)
    rows = []
    for index in range(scenes * per_scene):
        stem = f"nyu2_train/scene{index // per_scene:02d}_out/{index % per_scene + 1}"
        write_file(data / f"{stem}.jpg", noise_image(*size, seed=index))
        levels = np.rint(ramp_depth(*size, index % 7) * 25.5).astype(np.uint8)
        write_file(data / f"{stem}.png", levels)
        rows.append(f"data/{stem}.jpg,data/{stem}.png")
    (data / "nyu2_train.csv").write_text("\n".join(rows) + "\n")
    rows = []
    for index in range(n_test):
        stem = f"nyu2_test/{index:05d}"
        write_file(data / f"{stem}_colors.png", noise_image(*size, seed=100 + index))
        millimetres = np.rint(ramp_depth(*size) * 1000).astype(np.uint16)
        write_file(data / f"{stem}_depth.png", millimetres)
        rows.append(f"data/{stem}_colors.png,data/{stem}_depth.png")
    (data / "nyu2_test.csv").write_text("\n".join(rows) + "\n")
    return data


def metres(size: tuple[int, int], index: int) -> np.ndarray:
    return ramp_depth(*size, index % 5)


def millimetres(size: tuple[int, int], index: int) -> np.ndarray:
    return np.rint(metres(size, index) * 1000).astype(np.uint16)


def levels(size: tuple[int, int], index: int) -> np.ndarray:
    """Depth in steps of 0.05 m."""
    return np.rint(metres(size, index) * 20).astype(np.uint8)


def write_folder(
    root: Path, count: int = 20, depth=millimetres, per_scene: int = 0, sizes=((24, 32),)
) -> Path:
    """Write rgb/*.jpg and depth/*.png (.npy of floating point), in subfolders per scene."""
    for index in range(count):
        size = sizes[index % len(sizes)]
        stem = f"s{index // per_scene:02d}/{index:03d}" if per_scene else f"{index:03d}"
        write_file(root / "rgb" / f"{stem}.jpg", noise_image(*size, index))
        array = depth(size, index)
        suffix = ".npy" if array.dtype.kind == "f" else ".png"
        write_file(root / "depth" / f"{stem}{suffix}", array)
    return root


def write_labelled_mat(path: Path, images: np.ndarray, depths: np.ndarray, scenes=None) -> None:
    """Write images (N, H, W, 3) and depths (N, H, W) as MATLAB 7.3 stores them: columns first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = depths.transpose(0, 2, 1).astype(np.float32)
        if scenes is not None:
            cells = []
            for number, scene in enumerate(scenes):
                codes = np.array([[ord(letter)] for letter in scene], np.uint16)
                cells.append(file.create_dataset(f"#refs#/{number}", data=codes).ref)
            file.create_dataset("scenes", data=np.array([cells], h5py.ref_dtype))


SMALL = {
    "short_side": 24,
    "crop_size": (20, 28),
    "depth_size": (10, 14),
    "num_workers": 0,
    "batch_size": 4,
}


def set_up(kind: type, root: Path, **settings):
    """Return a data module that is ready for training."""
    module = kind(root, **{**SMALL, **settings})
    module.setup("fit")
    return module


class ArraySource(PairSource):
    """Pairs held in memory."""

    digest = "array"

    def __init__(self, pairs):
        self.pairs = pairs
        self.names = [f"array {index}" for index in range(len(pairs))]

    def __len__(self):
        return len(self.pairs)

    def load(self, index):
        return self.pairs[index]

    def fingerprint(self):
        return self.digest


def array_source(count: int, height: int = 24, width: int = 32) -> ArraySource:
    return ArraySource(
        [(noise_image(height, width, i), ramp_depth(height, width, i)) for i in range(count)]
    )


def sky_pair(index: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Ground in depth up to 60 m with holes, the bluer the farther; above it sky (inf), green."""
    random = np.random.default_rng(index)
    below = np.arange(height)[:, None] - random.integers(height // 5, height // 2)
    depth = np.where(below > 0, 4.0 * height / np.maximum(below, 1), np.inf)
    depth = np.broadcast_to(np.where(depth > 60, np.inf, depth), (height, width)).copy()
    sky = np.isinf(depth)
    blue = np.where(sky, 0, np.minimum(depth * 3, 200))
    depth[random.random(depth.shape) < 0.2] = 0
    red = random.integers(0, 40, depth.shape)
    return np.stack([red, np.where(sky, 250, red), blue], -1).astype(np.uint8), depth.astype(
        np.float32
    )


class SkySource(ArraySource):
    """Pictures whose sky is known to lie beyond the range."""

    beyond = True

    def __init__(self, count: int, first: int = 0):
        super().__init__([sky_pair(first + index) for index in range(count)])
        self.digest = f"sky {first} {count}"


class ArrayDataModule(DepthDataModule):
    """A data module over pairs in memory."""

    def __init__(self, train, val=None, test=None, **settings):
        super().__init__(**{**SMALL, "val_fraction": 0.0, **settings})
        self.train_source, self.val_source = (lambda: train), (lambda: val)
        self.test_source = lambda: test or train


class SkyDataModule(ArrayDataModule):
    """Twelve training and four test pictures of ground and sky, 2 to 40 m."""

    def __init__(self, **kwargs):
        own = {"depth_range": (2.0, 40.0), "bin_width": 1.0, "short_side": None}
        own |= {"crop_size": None, "depth_size": None}
        super().__init__(SkySource(12), SkySource(2, 50), SkySource(4, 100), **own | kwargs)
