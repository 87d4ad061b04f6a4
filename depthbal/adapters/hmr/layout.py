"""Where SPIN's files lie in a folder: its ``data`` folder, with pictures and features beside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from depthbal.errors import DataError

FitsKind = Literal["static", "final"]

CHECKPOINT = "model_checkpoint.pt"
MEAN_PARAMS = "smpl_mean_params.npz"
JOINT_REGRESSOR = "J_regressor_h36m.npy"
BODIES = ("NEUTRAL", "MALE", "FEMALE")


@dataclass(frozen=True)
class DataSet:
    """The files of one data set, relative to the folder.

    Args:
        name: As settings and reports call it.
        rows: The npz file of SPIN's dataset_extras.
        static: SPIN's static fits, or None.
        final: SPIN's final fits, or None.
        site: Where its pictures come from.
    """

    name: str
    rows: str
    static: str | None
    final: str | None
    site: str

    def fits(self, root: Path, kind: FitsKind) -> Path | None:
        """Return the file of fits that is there; None without one."""
        file = self.static if kind == "static" else self.final
        return root / file if file is not None and (root / file).is_file() else None

    def images(self, root: Path) -> Path:
        """Return the folder of the pictures."""
        return root / "images" / self.name

    def features(self, root: Path) -> Path:
        """Return the file of the frozen backbone's features."""
        return root / "features" / f"{Path(self.rows).stem}.npy"


def _train(name: str, rows: str, static: str, site: str, final: bool = True) -> DataSet:
    return DataSet(
        name,
        f"dataset_extras/{rows}.npz",
        f"static_fits/{static}_fits.npy",
        f"spin_fits/{name}.npz" if final else None,
        site,
    )


TRAINING = {
    data.name: data
    for data in (
        _train("h36m", "h36m_train", "h36m", "vision.imar.ro/human3.6m", final=False),
        _train(
            "mpi_inf_3dhp", "mpi_inf_3dhp_train", "mpi-inf-3dhp", "vcai.mpi-inf.mpg.de/3dhp-dataset"
        ),
        _train("lsp", "lsp_dataset_original_train", "lsp-orig", "sam.johnson.io/research/lsp.html"),
        _train("lspet", "hr-lspet_train", "lspet", "datasets.d2.mpi-inf.mpg.de/hr-lspet"),
        _train("mpii", "mpii_train", "mpii", "human-pose.mpi-inf.mpg.de"),
        _train("coco", "coco_2014_train", "coco", "cocodataset.org (train2014)"),
    )
}
TEST = DataSet(
    "3dpw", "dataset_extras/3dpw_test.npz", None, None, "virtualhumans.mpi-inf.mpg.de/3DPW"
)
DATA_SETS = {TEST.name: TEST, **TRAINING}


def body_file(root: Path, body: str) -> Path | None:
    """Return a body model's file, .npz before .pkl; None without one.

    Args:
        root: The folder.
        body: "NEUTRAL", "MALE" or "FEMALE".
    """
    for suffix in ("npz", "pkl"):
        path = root / "smpl" / f"SMPL_{body}.{suffix}"
        if path.is_file():
            return path
    return None


def require_body(root: Path, body: str) -> Path:
    """Return a body model's file.

    Raises:
        DataError: It is not there.
    """
    path = body_file(root, body)
    if path is None:
        raise DataError(
            f"there is no {root}/smpl/SMPL_{body}.pkl (or .npz); "
            "tools/train_hmr.py --check DIR says where it comes from"
            + ("" if body == "NEUTRAL" else ", or set --data.ground_truth neutral")
        )
    return path
