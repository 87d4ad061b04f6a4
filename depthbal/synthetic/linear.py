"""Linear regressors of many seeds at once, on whitened inputs."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from depthbal.synthetic.data import SyntheticData

START_PRECISIONS = (0.04, 25.0)  # within which 1 / s^2 is believed to begin with


class Whitening(NamedTuple):
    """Affine map of inputs to features of mean 0, covariance 1, and a constant 1.

    A linear model is the same function on either, but on features the Hessian is close to a
    multiple of the identity, whatever the inputs' scale and centre. means (S, 1, D); roots
    (S, D, D): Cholesky factors of the inputs' covariances.
    """

    means: Tensor
    roots: Tensor

    @classmethod
    def of(cls, data: SyntheticData) -> "Whitening":
        """Return the map for the training inputs that count."""
        weights = data.counted[..., None].double()
        total = weights.sum(1, keepdim=True)
        means = (data.inputs * weights).sum(1, keepdim=True) / total
        centred = (data.inputs - means) * weights
        return cls(means, torch.linalg.cholesky(centred.mT @ centred / total))

    def of_seed(self, index: int) -> "Whitening":
        """Return the map of one seed, for inputs (n, D)."""
        return Whitening(self.means[index], self.roots[index])

    def features(self, inputs: Tensor) -> Tensor:
        """Return features (S, n, D + 1) of inputs (S, n, D)."""
        whitened = torch.linalg.solve_triangular(self.roots, (inputs - self.means).mT, upper=False)
        return torch.cat([whitened.mT, torch.ones_like(inputs[..., :1])], -1)


class LinearRegressor(nn.Module):
    """A linear map of whitened inputs.

    Args:
        whitening: Of one seed.
        start: Initial coefficients (D + 1, D).
    """

    def __init__(self, whitening: Whitening, start: Tensor) -> None:
        super().__init__()
        self.whitening = whitening
        self.coefficients = nn.Parameter(start.clone(memory_format=torch.contiguous_format))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return predictions (n, D) of inputs (n, D)."""
        return self.whitening.features(inputs) @ self.coefficients


def balanced_start(
    data: SyntheticData, features: Tensor, noise_sigma: float | None
) -> tuple[Tensor, Tensor]:
    """Return coefficients (S, D + 1, D) and a noise scale (S,) near the balanced optimum.

    They are the optimum of GAI with one component, of the labels' mean m and covariance C. With the
    least-squares prediction q and the covariance R of its residuals:

        p = m + (1 + s^2 C^-1) (q - m),   1 / s^2 = trace(R^-1 - C^-1) / D

    Args:
        data: Training data.
        features: Of the training inputs, (S, n, D + 1).
        noise_sigma: s, or None to learn it.
    """
    counted = data.counted[..., None].double()
    weighted = features * counted
    squares = torch.linalg.solve(weighted.mT @ features, weighted.mT @ data.labels)
    total = counted.sum(1, keepdim=True)
    means = (data.labels * counted).sum(1, keepdim=True) / total

    def covariance(errors: Tensor) -> Tensor:
        return (errors * counted).mT @ errors / total

    precision = torch.linalg.inv(covariance(data.labels - means))
    if noise_sigma is None:
        residual = torch.linalg.inv(covariance(data.labels - features @ squares))
        gain = (residual - precision).diagonal(dim1=1, dim2=2).mean(1)
        sigma = gain.clamp(*START_PRECISIONS).rsqrt()
    else:
        sigma = features.new_full((len(features),), noise_sigma)
    squares[:, -1:] -= means
    balanced = squares + squares @ precision * sigma[:, None, None] ** 2
    balanced[:, -1:] += means
    return balanced, sigma
