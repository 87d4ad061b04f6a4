"""Drawing a fitted mixture's evidence to that of its histogram."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from depthbal.priors.bin_evidence import histogram_log_evidence
from depthbal.priors.binned_em import ScalarMixture
from depthbal.priors.histogram import Histogram

FloatArray = npt.NDArray[np.float64]

MAX_STEPS = 100
TYPICAL_ERROR = 0.05  # of the log-evidence, mean over the labels


@dataclass(frozen=True)
class FitReport:
    """How well a mixture stands for the histogram that it was fitted to.

    Attributes:
        noise_sigma: Noise scale of the evidences that are compared, label units.
        largest_error: Largest |log E_mixture - log E_histogram| for predictions between the
            smallest and the largest label.
        at: The prediction where it lies, label units.
        refined: Whether the mixture was refined for this noise scale.
    """

    noise_sigma: float
    largest_error: float
    at: float
    refined: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """The histogram's log evidence at predictions between the smallest and the largest label."""

    locations: FloatArray
    values: FloatArray
    noise_sigma: float

    @classmethod
    def of(cls, histogram: Histogram, noise_sigma: float) -> "Evidence":
        """Tabulate it, 8 values per sigma where that is between 256 and 2,048 values."""
        occupied = np.flatnonzero(histogram.counts)
        low, high = histogram.edges[occupied[0]], histogram.edges[occupied[-1] + 1]
        count = int(np.clip(8 * (high - low) / noise_sigma, 256, 2048))
        locations = np.linspace(low, high, count)
        values = histogram_log_evidence(histogram, locations, noise_sigma)
        return cls(locations, values, noise_sigma)

    def report(self, mixture: ScalarMixture, refined: bool) -> FitReport:
        """Compare a mixture with it."""
        weights, means, variances = mixture
        errors = np.abs(self._compare(weights, means, variances)[0])
        worst = int(np.argmax(errors))
        at = float(self.locations[worst])
        return FitReport(self.noise_sigma, float(errors[worst]), at, refined)

    def mean_over_labels(self, errors: FloatArray) -> float:
        """Average errors at the locations as often as (blurred) labels lie there."""
        share = np.exp(self.values - self.values.max())
        return float(errors @ share / share.sum())

    def _compare(
        self, weights: FloatArray, means: FloatArray, variances: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return log E - log E_histogram (N,), and what its derivatives need, (N, K) each.

        These are the components' shares of the evidence, distances and blurred variances (K,).
        """
        blurred = variances + self.noise_sigma**2
        distance = self.locations[:, None] - means
        log_joint = np.log(weights / np.sqrt(2 * np.pi * blurred)) - distance**2 / (2 * blurred)
        largest = log_joint.max(axis=1, keepdims=True)
        joint = np.exp(log_joint - largest)
        density = joint.sum(axis=1, keepdims=True)
        error = (largest + np.log(density))[:, 0] - self.values
        return error, joint / density, distance, blurred

    def errors(self, parameters: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
        """Return the errors (N,) and their derivatives (N, 3 K) by the parameters."""
        weights, means, variances = mixture_of(parameters, floor)
        error, shares, distance, blurred = self._compare(weights, means, variances)
        by_mean = shares * distance / blurred
        by_variance = shares * (distance**2 / blurred - 1) / (2 * blurred) * (variances - floor)
        return error, np.concatenate([shares - weights, by_mean, by_variance], axis=1)


def mixture_of(parameters: FloatArray, floor: float) -> ScalarMixture:
    """Return the mixture of log weights, means and logs of variances above the floor, (3 K,)."""
    log_weights, means, log_excess = np.split(parameters, 3)
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum(), means, floor + np.exp(log_excess)


def refine(mixture: ScalarMixture, evidence: Evidence, floor: float) -> ScalarMixture:
    """Return the mixture whose log evidence comes closest to the histogram's.

    Levenberg-Marquardt on sum error^4, whose minimum is near that of the largest error; EM, which
    weighs labels by their number, leaves that one to the rare labels. Where no mixture of this
    size can follow all labels, the many are not given up for the few: their mean error may not
    rise above ``TYPICAL_ERROR``.

    Args:
        mixture: Where to begin.
        evidence: The histogram's.
        floor: Smallest variance of a component.

    Returns:
        The mixture of the smallest largest error on the way, means increasing; ``mixture`` itself
        where nothing better was found.
    """
    weights, means, variances = mixture
    excess = np.maximum(variances - floor, 1e-3 * floor)
    parameters = np.concatenate([np.log(weights), means, np.log(excess)])
    error, slopes = evidence.errors(parameters, floor)
    best, best_error = None, np.abs(error).max()
    allowed = max(TYPICAL_ERROR, evidence.mean_over_labels(np.abs(error)))
    damping = 1e-3
    for _ in range(MAX_STEPS):
        proposal = parameters + _step(error, slopes, damping)
        new_error, new_slopes = evidence.errors(proposal, floor)
        if np.sum(new_error**4) < np.sum(error**4):
            parameters, error, slopes = proposal, new_error, new_slopes
            damping = max(damping / 3, 1e-9)
        else:
            damping *= 4
        largest, typical = np.abs(error).max(), evidence.mean_over_labels(np.abs(error))
        if largest < best_error and typical <= allowed:
            best, best_error = parameters, largest
        if damping > 1e8:
            break
    if best is None:
        return mixture
    weights, means, variances = mixture_of(best, floor)
    order = np.argsort(means)
    return weights[order], means[order], variances[order]


def _step(error: FloatArray, slopes: FloatArray, damping: float) -> FloatArray:
    """Return the damped Gauss-Newton step for residuals error |error|."""
    scaled = np.abs(error) / np.abs(error).max()
    residual, jacobian = error * scaled, 2 * slopes * scaled[:, None]
    curvature = jacobian.T @ jacobian
    diagonal = np.diag(curvature)
    damped = curvature + damping * np.diag(diagonal + 1e-9 * diagonal.max())
    return np.clip(np.linalg.solve(damped, -(jacobian.T @ residual)), -1.0, 1.0)
