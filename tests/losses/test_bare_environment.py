"""`depthbal.losses` and `depthbal.priors` work where only what docs/install.md names is."""

import re
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

INSTALL = Path(__file__).resolve().parents[2] / "docs" / "install.md"
NEEDED = re.search(r"^pip install (torch .*)$", INSTALL.read_text("utf-8"), re.MULTILINE)[1].split()


def required(name: str, known: set[str]) -> set[str]:
    """Add the names of a distribution and of all that it requires."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in known:
        known.add(name)
        with suppress(metadata.PackageNotFoundError):
            for line in metadata.requires(name) or []:
                if "extra ==" not in line:
                    required(re.match(r"[\w.-]+", line).group(), known)
    return known


KNOWN = set().union(*(required(name, set()) for name in NEEDED))
ALLOWED = {
    top
    for top, names in metadata.packages_distributions().items()
    if top == "depthbal" or KNOWN & {re.sub(r"[-_.]+", "-", name).lower() for name in names}
}

SCRIPT = f"""
import sys
ALLOWED = {ALLOWED!r}

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        hidden = top.startswith("_")  # compiled helpers and editable-install finders
        if top in sys.stdlib_module_names or top in ALLOWED or hidden:
            return self.finder.find_spec(name, path, target)

sys.meta_path = [Bare(finder) for finder in sys.meta_path]
import torch
from depthbal.losses import LOSSES, BinsLoss, CombinedLoss, GradientLoss, balance_predictions
from depthbal.priors import GaussianMixture, Histogram

labels = 0.7 + 9 * torch.rand(2000) ** 2
histogram = Histogram.regular(0.7, 10.0, 0.1)
histogram.update(labels)
for name, cls in LOSSES.items():
    loss = cls(label_range=(0.7, 10.0))
    if loss.needs_prior:
        loss.set_prior(histogram)
    preds = (labels + 0.5).requires_grad_()
    loss(preds, labels).backward()
    loss.readout(preds)
    assert torch.isfinite(preds.grad).all(), name
maps = labels.view(2, 1, 25, 40)
CombinedLoss([LOSSES["MSELoss"](), GradientLoss()])(maps + 0.5, maps)
BinsLoss(histogram)(torch.zeros(2, 64, 25, 40), maps)
balance_predictions(labels, GaussianMixture.fit(histogram), 0.5, (0.7, 10.0))
try:
    import pytorch_lightning
except ModuleNotFoundError:
    print("bare")
"""


def test_losses_and_priors_need_nothing_but_torch_numpy_scipy_and_scikit_learn():
    assert NEEDED == ["torch", "numpy", "scipy", "scikit-learn"]
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bare\n"
