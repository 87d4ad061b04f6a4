"""What a frozen backbone says about the pictures, computed once and kept in a file."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from depthbal.adapters.hmr.files import read_array
from depthbal.adapters.hmr.people import People, PeopleDataset
from depthbal.data.files import missing_files
from depthbal.errors import DataError
from depthbal.files import replacing
from depthbal.priors.files import write_json
from depthbal.training.frozen_features import compute_features, fingerprint

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

    Beside ``NAME.npy`` stands ``NAME.json``, which says of which backbone and pictures they are. A
    file of another backbone or of other pictures is replaced, where the pictures are there. One
    that says nothing is taken as it is, and so is any without a backbone.

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
    about = _describe(people, backbone)
    if path.is_file() and (backbone is None or _read_about(path) in (about, None)):
        return _open(path, len(people))
    if backbone is None:
        raise DataError(
            f"there is no {path}, and no backbone to compute it: give "
            "--model.model.init_args.weights, SPIN's model_checkpoint.pt"
        )
    require_pictures(people)
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


def _describe(people: People, backbone: nn.Module | None) -> dict[str, str]:
    boxes = hashlib.sha256("\n".join(Path(f).name for f in people.files.tolist()).encode())
    boxes.update(people.center.tobytes() + people.scale.tobytes())
    origin = "" if backbone is None else fingerprint(backbone)
    return {"backbone": origin, "pictures": boxes.hexdigest()[:32]}


def _read_about(path: Path) -> dict[str, str] | None:
    """Return what a file of features says about itself; None where it says nothing."""
    try:
        about: dict[str, str] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
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
