"""SPIN's data sets as a data module: which rows, how they are mixed, features or pictures."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from depthbal.adapters.hmr.crops import SIZE, Change, change_pose, crop_image, draw_change
from depthbal.adapters.hmr.errors import GroundTruth, Meshes, body_file
from depthbal.adapters.hmr.files import STEMS, TEST, FitsKind, People, read_people, rows_file
from depthbal.data.dataset import SeededDataset
from depthbal.data.files import missing_files
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD, read_image
from depthbal.data.label_data import LabelData, Split, announce
from depthbal.data.sampler import PADDING, EpochSampler
from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import Label, LabelBins
from depthbal.priors import Histogram

SOURCES = """\
smpl/SMPL_NEUTRAL.pkl (or .npz)  smplify.is.tue.mpg.de, after registration
smpl/SMPL_MALE.pkl, _FEMALE.pkl  smpl.is.tue.mpg.de; not with --data.ground_truth neutral
smpl_mean_params.npz, J_regressor_h36m.npy  SPIN's data.tar.gz, or the links in MMHuman3D's README
dataset_extras/3dpw_test.npz and any of {h36m,mpi_inf_3dhp,mpii,hr-lspet,lsp_dataset_original}_train
    .npz and coco_2014_train.npz  SPIN's dataset_extras.tar.gz, or its preprocessing
static_fits/NAME_fits.npy or spin_fits/NAME.npz  SPIN's static_fits.tar.gz, spin_fits.tar.gz
images/NAME/ from the data set's site and --model.model.weights, SPIN's model_checkpoint.pt or
    MMHuman3D's spin_official_nofc.pth; or features/STEM.npy, float32 (rows, F), in their place
SPIN's host, visiondata.cis.upenn.edu/spin, is reported unreachable since 2025."""
"""What SPIN's data folder holds, and where it comes from."""
PUBLISHED = {"h36m": 0.35, "mpi_inf_3dhp": 0.15, "lsp": 0.1, "lspet": 0.1, "mpii": 0.1, "coco": 0.2}
"""MMHuman3D, configs/balanced_mse/resnet50_spin_ihmr_ft_bmc.py."""
SPIN, IN_THE_WILD = {"h36m": 0.3, "mpi_inf_3dhp": 0.1}, 0.6
"""SPIN, datasets/mixed_dataset.py: the others share the rest in proportion to their sizes."""
MANY_SHARE, FEW_SHARE = 0.0074, 0.00285
"""A region with more, or fewer, of the training bodies is many-shot, or few-shot, as for depth."""
Recipe = Literal["spin", "published"]


class PeopleDataset(SeededDataset[dict[str, Any]]):
    """Samples of people: "image" (3, 224, 224), normalised, or its "features" (F,), and the body.

    Args:
        people: Whose pictures.
        seed: Of the changes.
        augment: Change crops and poses at random; not with features.
        features: (N, F), or None to give the images.
    """

    def __init__(
        self, people: People, seed: int = 0, augment: bool = False, features: Any = None
    ) -> None:
        super().__init__(seed)
        self.people, self.augment, self.features = people, augment, features

    def __len__(self) -> int:
        return len(self.people["file"])

    def sample(self, index: int, seed: int) -> dict[str, Any]:
        """Return a sample; the picture is read only where there are no features."""
        row = {key: column[index] for key, column in self.people.items()}
        pose, file = row["pose"], str(row["file"])
        if self.features is not None:
            pixels = {"features": torch.from_numpy(np.array(self.features[index]))}
        else:
            change = draw_change(np.random.default_rng(seed)) if self.augment else Change()
            image = crop_image(read_image(file), row["center"], float(row["scale"]), change)
            pixels, pose = {"image": image}, change_pose(pose, change)
        return {
            **pixels,
            "pose": torch.from_numpy(pose.copy()),
            "betas": torch.from_numpy(row["betas"]),
            "valid": bool(row["valid"]),
            "gender": int(row["gender"]),
            "index": index,
            "name": file,
            "group": Path(file).parent.name,  # the video that it is a frame of
        }

    def padding(self) -> dict[str, Any]:
        """Return a sample without a body."""
        return {**self.sample(0, 0), "valid": False, "index": PADDING}


class MixedSampler(EpochSampler):
    """Draw rows with replacement in proportion to their weights, by (seed, epoch) alone.

    The first number of an address is that of the draw and not of the epoch, so that a row drawn
    twice is changed differently.
    """

    def __init__(self, weights: Tensor, samples: int, seed: int = 0) -> None:
        super().__init__(range(samples), seed=seed)
        self.weights = weights

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this rank's (draw, row)."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        drawn = torch.multinomial(self.weights, self.total_size, True, generator=generator)
        numbered = enumerate(drawn.tolist(), start=self.epoch * self.total_size)
        return iter(list(numbered)[self.rank :: self.num_replicas])


def mixing_ratios(sizes: Mapping[str, int], recipe: Recipe = "spin") -> dict[str, float]:
    """Return the share of every data set in the training samples, the recipe's over their sum."""
    wild = sum(size for name, size in sizes.items() if name not in SPIN)
    shares = {
        name: PUBLISHED[name]
        if recipe == "published"
        else SPIN.get(name, IN_THE_WILD * size / max(wild, 1))
        for name, size in sizes.items()
    }
    return {name: share / sum(shares.values()) for name, share in shares.items()}


class HmrDataModule(LabelData):
    """Feed people of SPIN's data sets to training, validation and test.

    Training rows are drawn with replacement in the mixture's shares, as many per epoch as the
    largest data set has. Only rows with a body (known, or a fit that counts) are learned from.

    Args:
        root: SPIN's ``data`` folder; where files are missing, the error says where they come from.
        datasets: Training data sets; null takes all that are there.
        fits: "static" or "final" fits for pictures without a known body.
        mixing: "spin" (.3 Human3.6M, .1 MPI-INF-3DHP, the others the rest by their sizes) or the
            "published" shares (.35, .15, LSP, LSPET and MPII .1 each, COCO .2).
        augment: Change crops and poses at random as published, and run the backbone in every step;
            otherwise features are computed once.
        ground_truth: Test bodies of the person's gender, as published for 3DPW, or "neutral".
        batch_size: Samples per batch and process.
        num_workers: Loader processes; -1 chooses one per CPU up to 8.
        seed: Of draws, changes and the validation split.
        val_fraction: Share of every data set held out for validation; 0 for none.

    Raises:
        ConfigError: An unknown data set.
        DataError: When files are missing or wrong.
    """

    label = Label("distance to the mean pose", "mm")

    def __init__(
        self,
        root: str,
        datasets: list[str] | None = None,
        fits: FitsKind = "static",
        mixing: Recipe = "spin",
        augment: bool = False,
        ground_truth: GroundTruth = "gendered",
        batch_size: int = 128,
        num_workers: int = -1,
        seed: int = 0,
        val_fraction: float = 0.05,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        known = [name for name in STEMS if name != TEST]
        if datasets == [] or set(datasets or known) - set(known):
            raise ConfigError(f"expected data sets among {', '.join(known)}, got {datasets}")
        self.root, self.names = Path(root), known if datasets is None else datasets
        self.datasets, self.fits, self.mixing = datasets, fits, mixing
        self.augment, self.ground_truth, self.val_fraction = augment, ground_truth, val_fraction

    # ---- what there is ----

    def check_root(self) -> None:
        """Check that the files are there."""
        names = ["NEUTRAL"] + (["MALE", "FEMALE"] if self.ground_truth == "gendered" else [])
        needed = [body_file(self.root, name) for name in names]
        needed += [self.root / name for name in ("smpl_mean_params.npz", "J_regressor_h36m.npy")]
        needed.append(rows_file(self.root, TEST))
        train = [rows_file(self.root, name) for name in self.names]
        if self.datasets is not None or not any(path.is_file() for path in train):
            needed += train
        if missing := [str(path) for path in needed if not path.is_file()]:
            raise DataError(f"there is no {', no '.join(missing)}\nWhat is needed:\n{SOURCES}")

    @cached_property
    def meshes(self) -> Meshes:
        """What scores predictions for the test set."""
        return Meshes(self.root, self.ground_truth)

    @cached_property
    def parts(self) -> dict[str, tuple[People, NDArray[Any], NDArray[Any]]]:
        """Every training set with a body: its people, and which rows are kept and held out."""
        found = {}
        for name in self.names:
            if self.datasets is None and not rows_file(self.root, name).is_file():
                continue
            people = read_people(self.root, name, self.fits)
            if people["valid"].any():
                split = hold_out([name] * len(people["file"]), self.val_fraction, self.seed)
                found[name] = people, np.array(split.kept), np.array(split.held_out, int)
            elif self.datasets is not None or len(self.names) == 1:
                raise DataError(
                    f"no picture of {name} has a body: {rows_file(self.root, name)} has no pose "
                    f"and there are no {self.fits} fits for it; give them, or leave it out with "
                    "--data.datasets"
                )
        if not found:
            raise DataError(f"{self.root} has no training data with a body; it needs\n{SOURCES}")
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.ratios(found).items())
        announce(f"Training data: {shares}")
        return found
