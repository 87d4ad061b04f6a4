"""What a frozen backbone says about the pictures, computed once and kept in a file."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depthbal.adapters.hmr.files import read_array
from depthbal.adapters.hmr.people import People, PeopleDataset
from depthbal.data.files import files_digest, missing_files
from depthbal.errors import ConfigError, DataError
from depthbal.files import replacing
from depthbal.priors.files import write_json
from depthbal.training.frozen_features import compute_features, fingerprint

FORMAT = 2
"""Of what features depend on beside backbone and pictures: how crops are cut and normalised."""
SHOWN = 5
"""Missing pictures that a message names."""


def load_features(
    path: Path,
    people: People,
    backbone: nn.Module | None,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> NDArray[np.float32]:
    """Return the features (N, F) of the test crops of all pictures, from ``path`` or computed.

    Args:
        path: The .npy file; read without loading all of it into memory.
        people: Whose pictures, in the order of the file's rows.
        backbone: Frozen, from images (B, 3, 224, 224) to features (B, F); None for features of
            unknown origin.
        device: Where to compute.
        num_workers: Processes that read pictures.

    Raises:
        DataError: The file is damaged or of other rows; there is none and no backbone; a picture is
            missing.
    """
    kept = kept_features(path, people, backbone)
    if kept is not None:
        return kept
    backbone = _require_sources(path, people, backbone)
    about = _describe(people, backbone)
    features = compute_features(
        backbone,
        PeopleDataset(people),
        "input",
        num_workers=num_workers,
        device=device,
        title=path.stem,
    )
    with replacing(path) as temporary:
        np.save(temporary, features.numpy())
    write_json(path.with_suffix(".json"), about)
    return _open(path, len(people))


def kept_features(
    path: Path, people: People, backbone: nn.Module | None
) -> NDArray[np.float32] | None:
    """Return the features (N, F) that a file keeps of these pictures; None if it must be written.

    Beside ``NAME.npy`` stands ``NAME.json``, which says of which backbone and pictures they are:
    names, boxes, and the files' sizes and times, which are not compared where pictures are missing
    and could not be read again. A file that says nothing is taken as it is, and so is any without
    a backbone.

    Args:
        path: The .npy file.
        people: Whose pictures.
        backbone: Frozen, or None.

    Raises:
        DataError: The file is damaged or of other rows.
    """
    if not path.is_file():
        return None
    about = None if backbone is None else _read_about(path)
    if about is not None and backbone is not None:
        now = _describe(people, backbone)
        if any(about.get(key) != value for key, value in now.items()):
            return None
    return _open(path, len(people))


def require_features(path: Path, people: People, backbone: nn.Module | None, width: int) -> None:
    """Check that `load_features` can give features of a width, before it computes any.

    Args:
        path: The .npy file.
        people: Whose pictures.
        backbone: Frozen, or None.
        width: Numbers per picture that the regressor takes.

    Raises:
        ConfigError: The file will be used and its features are of another width.
        DataError: As `load_features`.
    """
    kept = kept_features(path, people, backbone)
    if kept is None:
        _require_sources(path, people, backbone)
    elif kept.shape[1] != width:
        found = kept.shape[1]
        setting = f"set --model.model.init_args.features {found}"
        if backbone is not None:
            setting = f"delete the file to have it computed, or leave weights out and {setting}"
        raise ConfigError(
            f"{path} has {found} numbers per picture, the network expects {width}; {setting}"
        )


def require_pictures(people: People) -> None:
    """Check that the pictures are there.

    Raises:
        DataError: Some are missing; says how many, and names the first five.
    """
    missing = [path for _, path in missing_files(Path(), people.files.tolist())]
    if missing:
        more = ", ..." if len(missing) > SHOWN else ""
        raise DataError(
            f"{len(missing)} of {len(people)} pictures are missing: "
            f"{', '.join(missing[:SHOWN])}{more}; complete the folder, or leave a data set for "
            "training out with --data.datasets"
        )


def _require_sources(path: Path, people: People, backbone: nn.Module | None) -> nn.Module:
    """Return the backbone that features are computed with, after a look at the pictures."""
    if backbone is None:
        raise DataError(
            f"there is no {path}, and no backbone to compute it: give "
            "--model.model.init_args.weights, SPIN's model_checkpoint.pt"
        )
    require_pictures(people)
    return backbone


def _describe(people: People, backbone: nn.Module) -> dict[str, Any]:
    files = people.files.tolist()
    boxes = hashlib.sha256("\n".join(Path(file).name for file in files).encode())
    boxes.update(people.center.tobytes() + people.scale.tobytes())
    about = {"format": FORMAT, "backbone": fingerprint(backbone), "boxes": boxes.hexdigest()[:32]}
    if not any(missing_files(Path(), files)):
        # relative to the folder that all are in, which may have another name
        start = os.path.commonprefix(files).rfind("/") + 1  # noqa: RUF071 - cut at a slash
        about["files"] = files_digest(Path(files[0][:start]), (file[start:] for file in files), "")
    return about


def _read_about(path: Path) -> dict[str, Any] | None:
    """Return what a file of features says about itself; None where it says nothing."""
    try:
        about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return about


def _open(path: Path, rows: int) -> NDArray[np.float32]:
    features = read_array(path, mapped=True)
    if features.ndim != 2 or len(features) != rows or features.dtype != np.float32:
        raise DataError(
            f"{path}: expected float32 features ({rows}, F), one row per picture, got "
            f"{features.dtype} {features.shape}; delete it to have it computed again"
        )
    return features
