"""The official balanced test mask inside a packed file."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from depthbal.data.packed.format import open_packed
from depthbal.data.packed.pairs import PackedPairs
from depthbal.errors import DataError
from depthbal.files import replacing


def read_mask(path: Path) -> NDArray[Any]:
    """Return the mask in an npy file, for packing.

    Raises:
        DataError: no readable array (images, height, width).
    """
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not a readable npy file of a mask ({error})") from error
    if not isinstance(mask, np.ndarray) or mask.ndim != 3:
        raise DataError(f"{path}: expected a mask (images, height, width)")
    return np.asarray(mask != 0)


def extract_mask(pairs: PackedPairs) -> Path | None:
    """Put the mask of a packed test split into the user's cache, as the npy file others expect.

    Returns:
        The npy file; None where the packed file holds no mask.

    Raises:
        DataError: the cache cannot be written; without the mask the scores would be others.
    """
    with open_packed(pairs.path) as file:
        stored = file[pairs.split].get("balanced_mask")
        if stored is None:
            return None
        digest = file[pairs.split].attrs["mask_digest"]
        target = user_cache_path("depthbal") / "masks" / f"{digest}.npy"
        if target.is_file():
            with suppress(OSError, ValueError, EOFError):
                if np.load(target, mmap_mode="r", allow_pickle=False).shape == stored.shape:
                    return target
        mask = stored[()].astype(bool)
    try:
        with replacing(target) as temporary:
            np.save(temporary, mask)
    except OSError as error:
        raise DataError(
            f"{target}: the balanced mask of {pairs.path} cannot be put there ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return target
