"""Under which settings a folder of SPIN's files can be trained on and scored."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import get_args

from torch import nn

from depthbal.adapters.hmr.backbone import FEATURES
from depthbal.adapters.hmr.features import kept_features, require_features
from depthbal.adapters.hmr.fits import read_people, read_test
from depthbal.adapters.hmr.layout import CHECKPOINT, TEST, TRAINING, FitsKind
from depthbal.adapters.hmr.meshes import Errors
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.people import People
from depthbal.errors import DataError, DepthbalError

Network = tuple[list[str], nn.Module | None, int]
"""Settings, backbone and width of its features."""


@dataclass
class Readiness:
    """What a training can use.

    Args:
        ways: Training data sets, and the settings under which they can be used beside those of the
            presets; a way with no more data sets than one before is left out.
        problems: By data set or part, why it cannot be used, or not as the presets would.
    """

    ways: list[tuple[list[str], list[str]]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def note(self, part: str, problem: object) -> None:
        """Keep the first problem of a part."""
        self.problems.setdefault(part, str(problem))


def readiness(root: Path) -> Readiness:
    """Read a folder as a training would, with either fits, bodies, and features or pictures.

    Args:
        root: SPIN's ``data`` folder.
    """
    result = Readiness()
    try:
        test = read_test(root)
    except DataError as error:
        result.note(TEST.name, error)
        return result
    truth = _ground_truth(root, result)
    if truth is None:
        return result
    read = {kind: dict(_training_people(root, kind, result)) for kind in get_args(FitsKind)}
    for name, data in TRAINING.items():
        if (root / data.rows).is_file() and not any(name in people for people in read.values()):
            result.note(name, "no picture has a body: no pose and shape, and no fits")
    for (network, backbone, width), kind in product(_networks(root, test, result), read):
        ready, refused = [], False
        for name, people in read[kind].items():
            try:
                if people is not None:
                    path = TRAINING[name].features(root)
                    require_features(path, people, backbone, width)
                    ready.append(name)
                refused |= people is None
            except DepthbalError as error:
                result.note(name, error)
                refused = True
        if ready and not any(set(ready) <= set(earlier) for earlier, _ in result.ways):
            fits = [] if kind == "static" else [f"--data.fits {kind}"]
            chosen = [f"--data.datasets [{','.join(ready)}]"] if refused else []
            result.ways.append((ready, [*fits, *truth, *network, *chosen]))
    return result


def _ground_truth(root: Path, result: Readiness) -> list[str] | None:
    """Return the settings under which the test set can be scored; None where it cannot be."""
    try:
        Errors(root, "gendered")
        return []
    except DataError as error:
        result.note("ground truth by gender", error)
    try:
        Errors(root, "neutral")
        return ["--data.ground_truth neutral"]
    except DataError as error:
        result.note("ground truth by the neutral body", error)
        return None


def _training_people(
    root: Path, kind: FitsKind, result: Readiness
) -> Iterator[tuple[str, People | None]]:
    """Yield the data sets that have bodies; None in place of one that cannot be read."""
    for name, data in TRAINING.items():
        if not (root / data.rows).is_file():
            continue
        try:
            people = read_people(root, data, kind)
            if people.valid.any():
                yield name, people
        except DataError as error:
            result.note(name, error)
            yield name, None


def _networks(root: Path, test: People, result: Readiness) -> Iterator[Network]:
    """Yield what can take the test set: a regressor of its features, or SPIN's backbone."""
    path = TEST.features(root)
    try:
        kept = kept_features(path, test, None)
        width = FEATURES if kept is None else kept.shape[1]
        require_features(path, test, None, width)
        setting = f"--model.model.init_args.features {width}"
        yield [] if width == FEATURES else [setting], None, width
    except DataError as error:
        result.note(f"{TEST.name} without weights", error)
    checkpoint = root / CHECKPOINT
    if not checkpoint.is_file():
        return
    try:
        backbone = SpinNetwork(str(checkpoint)).backbone
        require_features(path, test, backbone, FEATURES)
        yield [f"--model.model.init_args.weights {checkpoint}"], backbone, FEATURES
    except DepthbalError as error:
        result.note(f"{TEST.name} with weights", error)
