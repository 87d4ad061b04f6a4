"""Published weights by name: is the name known, can they be had, and what to do when not."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor

from depthbal.errors import ConfigError

PROBE_SECONDS = 5.0


def unknown_name(kind: str, name: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a misspelt name, with the nearest known ones.

    Example:
        >>> from depthbal.models.downloads import unknown_name
        >>> print(unknown_name("encoder", "resnet51", ["resnet50", "vgg16"]))
        no encoder 'resnet51'; did you mean resnet50?
    """
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    if near:
        return ConfigError(f"no {kind} {name!r}; did you mean {', '.join(near)}?")
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return ConfigError(f"no {kind} {name!r}; known: {shown}")


def no_download(weights: str, url: str, reason: object) -> ConfigError:
    """Return the error for weights that cannot be fetched, naming the two other ways."""
    return ConfigError(
        f"weights {weights!r} cannot be downloaded from {url} ({reason}); give the path of an "
        "encoder state dict (.pth, .pt, .safetensors) as weights, or weights=None to start from "
        "random ones"
    )


def probe(url: str) -> None:
    """Raise OSError within seconds when nobody answers at `url`; any answer will do.

    The download libraries retry for half a minute or wait without a limit, so a machine without
    a network learns it here first.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        # an opener of our own: urlopen keeps the first proxy settings it saw for good
        urllib.request.build_opener().open(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:  # refused to this probe, but somebody is there
        error.close()
    except urllib.error.URLError as error:
        # the download libraries bring certificates of their own, so leave the verdict to them
        if not isinstance(error.reason, ssl.SSLError):
            raise


@contextmanager
def downloading(weights: str, url: str, cached: bool) -> Iterator[None]:
    """Turn a failed download inside the block into an error that names the two other ways.

    Args:
        weights: the name the user gave.
        url: where the weights come from.
        cached: whether they are on this machine already, so that no network is needed.

    Raises:
        ConfigError: nobody answers at `url`, or the download fails.

    Example:
        >>> from depthbal.models.downloads import downloading
        >>> with downloading("imagenet", "https://example.org", cached=True):
        ...     raise OSError("disk full")
        Traceback (most recent call last):
        ...
        depthbal.errors.ConfigError: weights 'imagenet' cannot be downloaded from ...
    """
    try:
        if not cached:
            probe(url)
        yield
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error).splitlines()[0] or error
        raise no_download(weights, url, reason) from error


def torchvision_state_dict(published: Any, name: str) -> dict[str, Tensor]:
    """Return the parameters torchvision publishes under `name`, from its cache or the network.

    Args:
        published: the enumeration of one architecture, such as `ResNet50_Weights`.
        name: one of its members.

    Raises:
        ConfigError: the name is unknown, or the weights cannot be fetched.
    """
    if name not in published.__members__:
        raise unknown_name("weights", name, list(published.__members__))
    weights = published[name]
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name).is_file()
    with downloading(name, weights.url, cached):
        return dict(weights.get_state_dict(progress=True, check_hash=True))


def timm_source(name: str, weights: str) -> tuple[str, bool]:
    """Return the address of the weights timm publishes for a network, and whether they are here.

    Args:
        name: the network, with or without the weights' tag.
        weights: `"imagenet"` or the tag of the network's default weights.

    Raises:
        ConfigError: timm publishes none, or none of that name.
    """
    import timm  # takes a second, which networks of other libraries need not wait

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if not (config and config.hf_hub_id):
        raise ConfigError(f"timm publishes no weights for {name!r}; set weights to None")
    if weights not in ("imagenet", config.tag):
        raise unknown_name(f"weights for {name}", weights, ["imagenet", str(config.tag)])
    return hub_source(config.hf_hub_id)


def hub_source(repo_id: str, revision: str | None = None) -> tuple[str, bool]:
    """Return the address of a repository of weights, and whether they are on this machine."""
    file = try_to_load_from_cache(repo_id=repo_id, filename="model.safetensors", revision=revision)
    return f"{constants.ENDPOINT}/{repo_id}", isinstance(file, str)
