"""Features of a frozen network: computed once, kept, and fed in place of the images."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from platformdirs import user_cache_path
from rich.progress import track
from torch import Tensor, nn

from depthbal.adapters.age.data import LabelDataModule, LabelledDataset
from depthbal.data.dataset import SeededDataset
from depthbal.data.loader import LateLoader, single_threaded
from depthbal.data.sampler import PADDING
from depthbal.data.split_module import SplitDataModule, announce
from depthbal.evaluation import LabelBins
from depthbal.files import replacing
from depthbal.priors import Histogram
from depthbal.training.callbacks import show_progress

_FORMAT = 1  # of the cached files


class FeatureSample(TypedDict):
    """One sample: features (D,), label () and index."""

    features: Tensor
    label: Tensor
    index: int


class FeatureDataset(SeededDataset[FeatureSample]):
    """Features in place of images, addressed in the same way; padding has the label NaN.

    Args:
        features: (N, D) float32.
        labels: (N,) float32.

    Example:
        >>> FeatureDataset(torch.zeros(2, 3), torch.tensor([20.0, 30.0]))[1]["label"]
        tensor(30.)
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.features)

    def sample(self, index: int, seed: int) -> FeatureSample:
        """Return the features at an index; there is nothing to augment."""
        return {"features": self.features[index], "label": self.labels[index], "index": index}

    def padding(self) -> FeatureSample:
        """Return the first features without a label."""
        nowhere = torch.tensor(float("nan"))
        return {"features": self.features[0], "label": nowhere, "index": PADDING}


class FeatureDataModule(SplitDataModule[FeatureDataset]):
    """Training and validation batches of features, in the order of the images' own batches.

    The images are read without augmentation: `setup` runs the network over every image once, or
    reads what an earlier re-training of the same weights on the same images left in
    ``depthbal/features`` in the user's cache directory, which may be deleted at any time.

    Args:
        data: The images.
        backbone: From images (B, 3, S, S) to features (B, D); used in evaluation mode.
    """

    def __init__(self, data: LabelDataModule, backbone: nn.Module) -> None:
        super().__init__(data.batch_size, 0, data.seed)
        self.data = data
        self.backbone = backbone

    def prepare_data(self) -> None:
        """Let the images be prepared."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Compute or read the features of the training and validation split."""
        if self.train_set is not None:
            return
        self.data.setup(stage)
        strategy = getattr(self.trainer, "strategy", None)
        device = torch.device("cpu") if strategy is None else strategy.root_device
        weights = fingerprint(self.backbone)
        self.train_set = self._features(self.data.train_set, weights, device)
        self.val_set = self._features(self.data.val_set, weights, device)

    def _features(
        self, images: LabelledDataset | None, weights: str, device: torch.device
    ) -> FeatureDataset | None:
        if images is None:
            return None
        plain = LabelledDataset(images.source, self.data.eval_transform)
        key = f"{_FORMAT} {weights} {images.source.fingerprint()} {plain.transform.size}"
        file = cache_file(hashlib.sha256(key.encode()).hexdigest()[:32])
        features = read_features(file, len(plain))
        if features is None:
            announce(f"Features of {len(plain)} images are computed once and kept in {file}")
            features = compute_features(self.backbone, plain, self.data, device)
            with suppress(OSError), replacing(file) as temporary:  # costs time only
                np.save(temporary, features.numpy())
        return FeatureDataset(features, torch.as_tensor(images.source.labels, dtype=torch.float32))

    # ---- what the engine asks the data ----

    def train_histogram(self) -> Histogram:
        """Return the training labels' histogram."""
        return self.data.train_histogram()

    def bins(self) -> LabelBins:
        """Return the labels' bins and shots."""
        return self.data.bins()

    def label_range(self) -> tuple[float, float]:
        """Return the ends of the training labels' range."""
        return self.data.label_range()

    def input_spec(self) -> dict[str, Any]:
        """Return what the whole network expects: images."""
        return self.data.input_spec()


def encode(backbone: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the features that a frozen network gives in evaluation, whatever the precision.

    Autocast is off: training, cache and evaluation see the same features.

    Args:
        backbone: In evaluation mode; a network or its method.
        images: (B, 3, S, S), normalised.

    Returns:
        (B, D) float32, without gradient.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return backbone(images.float())


def compute_features(
    backbone: nn.Module, images: LabelledDataset, data: LabelDataModule, device: torch.device
) -> Tensor:
    """Return the features of all images in order, (N, D) float32 on the CPU.

    Args:
        backbone: In evaluation mode; it is left on the device.
        images: What to run it on.
        data: Says how many images at once, and with how many processes they are read.
        device: Where to compute.
    """
    backbone.to(device)
    loader: LateLoader[Any] = LateLoader(
        images,  # type: ignore[arg-type]
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        worker_init_fn=single_threaded,
    )
    batches = track(loader, "Computing features", transient=True, disable=not show_progress())
    return torch.cat([encode(backbone, batch["image"].to(device)).cpu() for batch in batches])


def fingerprint(backbone: nn.Module) -> str:
    """Return a hex digest of a network's structure, weights and running statistics.

    Example:
        >>> fingerprint(nn.Identity()) == fingerprint(nn.Flatten())
        False
    """
    digest = hashlib.sha256(repr(backbone).encode())
    for name, value in backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def cache_file(key: str) -> Path:
    """Return where features with this key are kept."""
    return user_cache_path("depthbal") / "features" / f"{key}.npy"


def read_features(file: Path, count: int) -> Tensor | None:
    """Return the features in a cache file; None where it is missing, damaged or not ours."""
    try:
        stored = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    ours = stored.ndim == 2 and len(stored) == count and stored.dtype == np.float32
    return torch.from_numpy(stored) if ours else None
