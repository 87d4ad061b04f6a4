"""The regressors that are trained step by step: linear, or a small network."""

import torch
from torch import Tensor, nn

from depthbal.synthetic.data import SyntheticData

HIDDEN = 16


class SmallNetwork(nn.Module):
    """A linear map plus a network of one hidden layer, on standardised inputs.

        p(z) = a + b z + c tanh(W z + d),  z = (x - mean) / std

    The linear part lets it go on beyond the inputs seen in training, where tanh saturates.

    Args:
        inputs: Training inputs (n, D) that count.
        labels: Their labels (n, D).
        seed: Of the initial weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: Tensor, labels: Tensor, seed: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        dim = labels.shape[-1]
        self.register_buffer("mean", inputs.mean(0))
        self.register_buffer("std", inputs.std(0))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(dim, dim, dtype=inputs.dtype)
            self.inner = nn.Linear(dim, hidden, dtype=inputs.dtype)
            self.outer = nn.Linear(hidden, dim, bias=False, dtype=inputs.dtype)
        with torch.no_grad():
            self.linear.bias.copy_(labels.mean(0))

    def bend(self) -> Tensor:
        """Return the sum of the squared weights of the part that is not linear."""
        return self.inner.weight.square().sum() + self.outer.weight.square().sum()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return predictions (n, D)."""
        z = (inputs - self.mean) / self.std
        preds: Tensor = self.linear(z) + self.outer(torch.tanh(self.inner(z)))
        return preds


def small_network(data: SyntheticData, index: int) -> SmallNetwork:
    """Return the untrained network of one seed."""
    counted = data.counted[index]
    return SmallNetwork(data.inputs[index, counted], data.labels[index, counted], data.seeds[index])
