"""The run folder: one place for everything that a training leaves behind."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from depthbal.afterwards import HISTOGRAM_FILE
from depthbal.checkpoint import find_checkpoint
from depthbal.errors import RunFolderError

CheckpointName = Literal["last", "best"]


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run folder.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration of the run."""
        return self.path / "config.yaml"

    @property
    def versions(self) -> Path:
        """Versions, machine, seed and command line."""
        return self.path / "versions.json"

    @property
    def histogram(self) -> Path:
        """The histogram of the training labels."""
        return self.path / HISTOGRAM_FILE

    @property
    def prior(self) -> Path:
        """The prior that the loss used."""
        return self.path / "prior.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of ``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    @property
    def metrics_csv(self) -> Path:
        """Losses and validation metrics over time."""
        return self.path / "metrics.csv"

    @property
    def report(self) -> Path:
        """The page that shows the result; report.md lies beside it."""
        return self.path / "report.html"

    @property
    def noise_picture(self) -> Path:
        """The learned noise scale over depth."""
        return self.path / "noise.png"

    def predictions(
        self, checkpoint: CheckpointName = "last", posthoc_sigma: float | None = None
    ) -> Path:
        """Return the folder of an evaluation's example pictures."""
        return self.path / f"predictions{_suffix('nyud2_dir', checkpoint, posthoc_sigma)}"

    def metrics(
        self,
        protocol: str = "nyud2_dir",
        checkpoint: CheckpointName = "last",
        posthoc_sigma: float | None = None,
    ) -> Path:
        """Return the path of an evaluation's result.

        Example:
            >>> RunFolder(Path("run")).metrics("eigen", "best").name
            'metrics_eigen_best.json'
            >>> RunFolder(Path("run")).metrics(posthoc_sigma=1.0).name
            'metrics_posthoc_1.json'
        """
        return self.path / f"metrics{_suffix(protocol, checkpoint, posthoc_sigma)}.json"

    def per_image(
        self,
        protocol: str = "nyud2_dir",
        checkpoint: CheckpointName = "last",
        posthoc_sigma: float | None = None,
    ) -> Path:
        """Return the path of an evaluation's sums per image and bin."""
        return self.path / f"per_image{_suffix(protocol, checkpoint, posthoc_sigma)}.npz"

    def examples(
        self,
        protocol: str = "nyud2_dir",
        checkpoint: CheckpointName = "last",
        posthoc_sigma: float | None = None,
    ) -> Path:
        """Return the path of an evaluation's example images, truths and predictions."""
        return self.path / f"examples{_suffix(protocol, checkpoint, posthoc_sigma)}.npz"

    def exported(
        self,
        ending: str,
        checkpoint: CheckpointName = "last",
        posthoc_sigma: float | None = None,
        readout: str | None = None,
    ) -> Path:
        """Return the path of an exported network.

        Args:
            ending: Of the format, such as ".onnx".
            checkpoint: The last epoch, or the best.
            posthoc_sigma: With which it is balanced afterwards.
            readout: None for the run's own.

        Example:
            >>> RunFolder(Path("run")).exported(".onnx", "best", readout="raw").name
            'model_best_raw.onnx'
        """
        suffix = _suffix("nyud2_dir", checkpoint, posthoc_sigma)
        return self.path / f"model{suffix}{'' if readout is None else f'_{readout}'}{ending}"

    def checkpoint(self, name: CheckpointName) -> Path:
        """Return the path of a checkpoint, which need not exist."""
        return self.checkpoints / f"{name}.ckpt"

    def is_run(self) -> bool:
        """Whether the folder was written by depthbal."""
        return self.config.is_file() and self.versions.is_file()

    def require_checkpoint(self, name: CheckpointName) -> Path:
        """Return the path of a checkpoint that exists.

        Raises:
            RunFolderError: The folder is no run or has no such checkpoint.
        """
        self.require_run()
        return find_checkpoint(self.path, name)

    def require_run(self) -> None:
        """Check that this is a run folder.

        Raises:
            RunFolderError: It is missing or something else.
        """
        if self.path.is_file():
            near = [str(folder) for folder in self.path.parents if RunFolder(folder).is_run()]
            hint = f": {near[0]}" if near else ""
            raise RunFolderError(f"{self.path} is a file; give the run folder that holds it{hint}")
        if not self.path.is_dir():
            raise RunFolderError(f"there is no run folder {self.path}")
        if not self.is_run():
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no config.yaml and versions.json"
            )


def require_claimable(path: Path, overwrite: bool = False) -> None:
    """Check, without touching anything, that a run may be put at ``path``.

    Args:
        path: Where it shall be.
        overwrite: Whether a previous run there may be deleted. Nothing else ever is.

    Raises:
        RunFolderError: Something is there already, or nothing can be written there.
    """
    _require_writable(path)
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        raise RunFolderError(
            f"{path} exists and is not empty; choose another folder with --out, continue it "
            f"with --resume {path}, or delete it with --overwrite"
        )
    if not RunFolder(path).is_run():
        raise RunFolderError(
            f"{path} is not a run folder (no config.yaml and versions.json), so --overwrite "
            "does not delete it; choose another folder with --out"
        )


def claim_run_folder(path: Path, overwrite: bool = False) -> RunFolder:
    """Make an empty run folder at ``path``, deleting a previous run where that is allowed.

    Raises:
        RunFolderError: As `require_claimable`.
    """
    require_claimable(path, overwrite)
    try:
        if path.is_dir():
            shutil.rmtree(path)
        path.mkdir(parents=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot make the run folder {path} ({error.strerror}: {error.filename}); choose "
            "another with --out"
        ) from error
    return RunFolder(path)


def _require_writable(path: Path) -> None:
    """Check that a folder can be made or filled at ``path``."""
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise RunFolderError(f"{there} is a file; choose another folder with --out")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise RunFolderError(f"{there} is not writable; choose another folder with --out")


def free_folder(parent: Path, name: str) -> Path:
    """Return the first of ``parent/name``, ``parent/name-2``, ... that does not exist.

    Example:
        >>> import tempfile
        >>> parent = Path(tempfile.mkdtemp())
        >>> (parent / "rooms-gai").mkdir()
        >>> free_folder(parent, "rooms-gai").name
        'rooms-gai-2'
    """
    number = 1
    while (path := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def run_name(config: Path) -> str:
    """Return the name of the runs of a config file.

    Example:
        >>> run_name(Path("configs/rooms/gai.yaml")), run_name(Path("mine.yaml"))
        ('rooms-gai', 'mine')
    """
    parts = config.with_suffix("").parts
    if "configs" in parts:
        last = len(parts) - 1 - parts[::-1].index("configs")
        parts = parts[last + 1 :]
    else:
        parts = parts[-1:]
    return "-".join(parts)


def _suffix(protocol: str, checkpoint: str, posthoc_sigma: float | None) -> str:
    """Return what tells an evaluation's files from those of the default one."""
    sigma = None if posthoc_sigma is None else f"posthoc_{posthoc_sigma:.12g}"
    parts = (protocol, "nyud2_dir"), (checkpoint, "last"), (sigma, None)
    return "".join(f"_{part}" for part, default in parts if part != default)
