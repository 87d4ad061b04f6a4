"""Features of a frozen backbone in place of images: computed once and kept in the cache."""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from depthbal.adapters.age.data import LabelDataModule, LabelledDataset
from depthbal.data.split_module import announce
from depthbal.files import replacing
from depthbal.training.frozen_features import compute_features, fingerprint

_FORMAT = 2  # of the cached files; raised whenever images are prepared otherwise


def use_features(
    data: LabelDataModule, backbone: nn.Module, device: torch.device | str = "cpu"
) -> None:
    """Let training and validation read features, in the order of the images' own batches.

    The images are read without augmentation: the network runs over every image once, unless an
    earlier re-training of the same weights on the same images has left its features in
    ``depthbal/features`` in the user's cache directory, which may be deleted at any time.

    Args:
        data: Set up for training.
        backbone: From images (B, 3, S, S) to features (B, D); used in evaluation mode.
        device: Where to compute.
    """
    weights = fingerprint(backbone)
    for images in (data.train_set, data.val_set):
        if images is not None:
            plain = LabelledDataset(images.source, data.eval_transform)
            images.features = _features(plain, backbone, weights, data, device)


def _features(
    images: LabelledDataset,
    backbone: nn.Module,
    weights: str,
    data: LabelDataModule,
    device: torch.device | str,
) -> Tensor:
    key = f"{_FORMAT} {weights} {images.source.fingerprint()} {images.transform.size}"
    file = cache_file(hashlib.sha256(key.encode()).hexdigest()[:32])
    features = read_features(file, len(images))
    if features is None:
        announce(f"Features of {len(images)} images are computed once and kept in {file}")
        features = compute_features(
            backbone,
            images,
            "image",
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            device=device,
        )
        with suppress(OSError), replacing(file) as temporary:  # costs time only
            np.save(temporary, features.numpy())
    return features


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
