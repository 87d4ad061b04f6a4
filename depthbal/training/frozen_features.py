"""Features of a frozen network: computed once, whatever the application keeps them in."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import Dataset

from depthbal.data.loader import LateLoader, single_threaded
from depthbal.training.callbacks import show_progress


def encode(backbone: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the features that a frozen network gives in evaluation, whatever the precision.

    Autocast is off: training, cache and evaluation see the same features.

    Args:
        backbone: In evaluation mode; a network or its method.
        images: (B, 3, H, W), normalised.

    Returns:
        (B, D) float32, without gradient.
    """
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return backbone(images.float())


def compute_features(
    backbone: nn.Module,
    images: Dataset[Any],
    key: str,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    title: str = "images",
) -> Tensor:
    """Return the features of all images in order, (N, D) float32 on the CPU.

    Args:
        backbone: From images (B, 3, H, W) to (B, D). It is set to evaluation mode and left on the
            device.
        images: What to run it on; samples are dictionaries.
        key: Of the image in a sample.
        batch_size: How many images at once.
        num_workers: Processes that read them.
        device: Where to compute.
        title: What the progress bar calls them.

    Example:
        >>> images = [{"image": torch.full((3, 2, 2), float(value))} for value in range(3)]
        >>> backbone = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
        >>> compute_features(backbone, images, "image")[:, 0]
        tensor([0., 1., 2.])
    """
    backbone.to(device).eval()
    loader: LateLoader[Any] = LateLoader(
        images, batch_size=batch_size, num_workers=num_workers, worker_init_fn=single_threaded
    )
    shown = track(loader, f"Features of {title}", transient=True, disable=not show_progress())
    return torch.cat([encode(backbone, batch[key].to(device)).cpu() for batch in shown])


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


@contextmanager
def first_process_first(trainer: pl.Trainer) -> Iterator[None]:
    """Run a block in the first process, then in the others, which find what it has computed."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()
