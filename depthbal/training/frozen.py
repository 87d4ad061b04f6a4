"""Features of a frozen backbone: computed once, kept in the cache, read in place of images."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from depthbal.data.cache import cache_file, cached
from depthbal.data.loader import LateLoader, single_threaded
from depthbal.io import show_progress

_FORMAT = 3  # of the cached files; raised whenever features of the same key would be others


def use_features(data: Any, backbone: nn.Module, device: torch.device | str = "cpu") -> None:
    """Let training and validation of a data module read features in place of images.

    Its data sets need ``plain()``, the same samples with "image", without augmentation, addressed
    by index, and ``fingerprint()``, a digest of all that these depend on. Once ``features`` (N, D)
    is set, their samples have "features" (D,) in place of "image", in the same order. They are kept
    under the weights of the backbone and that digest: a second training computes nothing. Autocast
    is off, so that they are the same whatever the precision.
    """

    def compute(images: Any) -> NDArray[np.float32]:
        backbone.to(device).eval()
        loader: LateLoader[Any] = LateLoader(
            images.plain(),
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            worker_init_fn=single_threaded,
        )
        shown = track(loader, "Features of images", transient=True, disable=not show_progress())
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            found = [backbone(batch["image"].to(device).float()).cpu() for batch in shown]
        return torch.cat(found).numpy()

    for images in (data.train_set, data.val_set):
        if images is not None:
            name = f"{_FORMAT} {fingerprint(backbone)} {images.fingerprint()} image"
            file = cache_file("features", f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy")
            found = cached(file, np.load, partial(compute, images), np.save)
            images.features = torch.from_numpy(found)


def fingerprint(module: nn.Module) -> str:
    """Return a digest of a network's structure, weights and running statistics."""
    digest = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def first_process_first(trainer: pl.Trainer) -> Iterator[None]:
    """Run a block in the first process, then in the others, which find what it has computed."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()
