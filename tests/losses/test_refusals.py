"""What the losses, the read-outs and the maps refuse, with what is to be done about it."""

import math

import numpy as np
import pytest
import torch

from depthbal.losses import (
    LOSSES,
    BalanceMap,
    BinsLoss,
    BMCLoss,
    BNILoss,
    CombinedLoss,
    FocalRLoss,
    GAILoss,
    GradientLoss,
    HuberLoss,
    LogLabelLoss,
    MSELoss,
    ReweightedLoss,
    SILogLoss,
    balance_predictions,
    label_weights,
    sigma_from_rmse,
    truncated_normal_mean,
)
from depthbal.losses.calibration import CalibratedMap
from depthbal.losses.families import build_family
from depthbal.losses.noise import check_noise
from depthbal.losses.readout import central_interval
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import LONG_TAIL, RANGE

NAN, INF = math.nan, math.inf
PLANE = GaussianMixture([1.0], [[1.0, 2.0]], [[1.0, 1.0]])
MIXTURE = GaussianMixture([0.5, 0.5], [2.0, 6.0], [1.0, 1.0])
EMPTY = Histogram([0.0, 1.0, 2.0])
FROM_ZERO = Histogram([0.0, 1.0], [1])
SPREAD = math.sqrt(np.average((LONG_TAIL.centers - LONG_TAIL.mean) ** 2, weights=LONG_TAIL.counts))
lds = {"smoothing": "gaussian"}


def beyond(loss):
    """Call a loss with a label that lies beyond its range."""
    return loss(torch.zeros(2, 1), torch.zeros(2, 1), None, torch.ones(2, 1).bool())


def bins(*shapes, n_bins=7):
    """Call a loss of logits with tensors of such shapes."""
    return BinsLoss(LONG_TAIL, n_bins=n_bins)(*(torch.ones(shape) for shape in shapes))


def balanced(preds, prior, sigma=1.0):
    return balance_predictions(torch.tensor(preds), prior, sigma)


REFUSED = [
    # arguments of balanced losses
    (lambda: GAILoss(init_noise_sigma=0.0), "positive noise_sigma"),
    (lambda: GAILoss(noise="depth?"), "fixed, learned, depth or a NoiseModule"),
    (lambda: GAILoss(scale="pixel?"), "mean, pixel or none"),
    (lambda: GAILoss(tau=1.5), r"tau in \[0, 1\]"),
    (lambda: GAILoss(relative_to="nonsense"), "or a .json file, got 'nonsense'"),
    (lambda: GAILoss(label_range=(10.0, 0.7)), "lo < hi"),
    (lambda: GAILoss(label_range=(NAN, 1)), "both finite"),
    (lambda: BNILoss(PLANE), "scalar labels"),
    (lambda: GAILoss(MIXTURE, tau=0.5), "relative_to"),
    (lambda: GAILoss(MIXTURE, event_dim=1), "1 for vectors, got"),
    (lambda: GAILoss(label_range=(0.0, 1.0), event_dim=1), "no label_range"),
    (lambda: GAILoss(noise="depth", event_dim=1), "for vectors"),
    (lambda: GAILoss(event_dim=2), "event_dim 0"),
    (lambda: GAILoss(mse_weight=0.0, balance_weight=0.0), "not both 0"),
    (lambda: GAILoss(beyond_length=0.0), "positive beyond_length"),
    (lambda: BMCLoss(method="pairs"), "auto, exact, grouped or binned, got 'pairs'"),
    (lambda: BMCLoss(method="binned", event_dim=1), "for vectors"),
    (lambda: BMCLoss(memory=5, event_dim=1), "memory=None for vectors"),
    (lambda: BMCLoss(family="huber", event_dim=1), "gaussian for vectors"),
    (lambda: BMCLoss(memory=0, label_range=RANGE), "positive number of batches"),
    (lambda: BMCLoss(family="cauchy"), "expected family"),
    *((lambda v=v: BMCLoss(family="huber", huber_delta=v), "finite delta") for v in (0, INF, NAN)),
    *((lambda v=v: BMCLoss(family="student", student_df=v), "finite deg") for v in (-1, INF, NAN)),
    # of others
    (lambda: HuberLoss(0.0), "positive delta"),
    (lambda: SILogLoss(1.5), r"in \[0, 1\]"),
    (lambda: FocalRLoss(error="mse"), "squared or absolute"),
    (lambda: FocalRLoss(activation="relu"), "sigmoid or tanh"),
    (lambda: FocalRLoss(beta=0.0), "beta > 0"),
    (lambda: GradientLoss((0,)), "strides of 1 or more"),
    (lambda: CombinedLoss([]), "factor per loss"),
    (lambda: CombinedLoss([MSELoss()], [1.0, 2.0]), "got 2 for 1"),
    (lambda: CombinedLoss([MSELoss(), BinsLoss()]), "logits"),
    (lambda: ReweightedLoss(error="huber"), "squared or absolute"),
    (lambda: ReweightedLoss(kernel_size=2, **lds), "odd kernel_size"),  # without a histogram, too
    (lambda: ReweightedLoss(MIXTURE), "expected a Histogram"),
    (lambda: label_weights(LONG_TAIL, "log"), "inverse or sqrt_inverse"),
    (lambda: label_weights(LONG_TAIL, clip=(9.0, 5.0)), "0 < lo <= hi"),
    (lambda: label_weights(LONG_TAIL, smoothing="box"), "gaussian, triangular or laplace"),
    (lambda: label_weights(LONG_TAIL, kernel_sigma=0.0, **lds), "positive kernel_sigma"),
    (lambda: label_weights(EMPTY), "got an empty one"),
    (lambda: BinsLoss(n_bins=1), "at least 2 bins"),
    (lambda: BinsLoss(spacing="sqrt"), "uniform, log or quantile"),
    (lambda: BinsLoss(tau=1.5), r"tau in \[0, 1\]"),
    (lambda: BinsLoss(relative_to="flat"), "log_uniform"),
    (lambda: BinsLoss(MIXTURE), "expected a Histogram"),
    (lambda: BinsLoss(FROM_ZERO, spacing="log"), "label_range above 0"),
    (lambda: LogLabelLoss(BinsLoss()), "scalar labels for their logarithms.*got BinsLoss"),
    (lambda: LogLabelLoss(MSELoss(event_dim=1)), "scalar labels"),
    (lambda: LogLabelLoss(BMCLoss(noise="depth")), "noise fixed or learned"),
    (lambda: LogLabelLoss(BNILoss(family="laplace")), "balanced one of Gaussian noise"),
    (lambda: LogLabelLoss(GAILoss(relative_to="exp_uniform")), "uniform or log_uniform"),
    (lambda: LogLabelLoss(MSELoss(), (0.0, 5.0)), "label_range above 0"),
    (lambda: LogLabelLoss(BNILoss()).set_prior(FROM_ZERO), "labels above 0"),
    # inputs
    (lambda: BMCLoss(memory=5)(torch.zeros(2), torch.ones(2)), "expected memory with label_range"),
    (lambda: SILogLoss()(torch.ones(3), torch.tensor([1.0, 0, -2])), "2 targets that count are"),
    (lambda: GradientLoss()(torch.ones(3), torch.ones(3)), "expected maps"),
    (lambda: GradientLoss()(torch.ones(2, 2), torch.zeros(2, 2)), "4 targets"),
    (
        lambda: BMCLoss(relative_to="log_uniform")(*torch.tensor([[1.0, 2], [-1, 2]])),
        "positive targ",
    ),
    (lambda: BinsLoss()(torch.zeros(2, 64), torch.ones(2)), "no prior is set"),
    (lambda: bins((2, 1, 4, 4), (2, 1, 4, 4)), "one per bin"),
    (lambda: bins((2, 7, 4, 4), (2, 1, 8, 8)), "differ"),
    (lambda: bins((2, 7), 2, 2), "boolean mask"),
    (lambda: BinsLoss(LONG_TAIL, n_bins=7)(torch.ones(2, 7), torch.ones(2).long()), "floating"),
    *(
        (lambda name=name: LOSSES[name]()(torch.zeros(3), torch.zeros(3)), "no prior.*set_prior")
        for name in ("BNILoss", "GAILoss", "ReweightedLoss")
    ),
    (lambda: BMCLoss(event_dim=1)(*torch.ones(2)), "single numbers"),
    (lambda: BMCLoss(event_dim=1)(torch.ones(3, 3), torch.ones(1, 3)), "differ"),
    (
        lambda: BMCLoss(event_dim=1)(*torch.ones(2, 4, 3), torch.ones(4, 3).bool()),
        "one entry per label",
    ),
    (lambda: beyond(MSELoss()), "label_range"),
    (lambda: beyond(MSELoss(label_range=RANGE, event_dim=1)), "scalar labels"),
    (lambda: beyond(BNILoss(LONG_TAIL, label_range=RANGE, family="laplace")), "gaussian"),
    (lambda: beyond(BNILoss(LONG_TAIL, label_range=RANGE)), "set_prior"),
    (lambda: beyond(GAILoss(MIXTURE, label_range=RANGE)), "set_prior"),
    # balancing afterwards
    (lambda: balanced([1.0, NAN, INF], LONG_TAIL), "2 NaN or infinite"),
    (lambda: balanced([1.0], LONG_TAIL, 0.0), "positive noise_sigma"),
    (lambda: balanced([1.0], LONG_TAIL, torch.ones(2)), "one element"),
    (lambda: balanced([1.0], Histogram([0.0, 1.0, 2.0], [0, 4])), "at least 2 distinct labels"),
    (lambda: balanced([1.0], PLANE), "scalar labels"),
    *(
        (lambda e=e: sigma_from_rmse(e, LONG_TAIL), "below the labels' standard deviation")
        for e in (0.0, -1.0, NAN, 1.001 * SPREAD, 50.0)
    ),
    (lambda: CalibratedMap([[0, 1]] * 4, 1.0, RANGE)(torch.tensor([0.5, NAN])), "1 NaN or inf"),
    (lambda: check_noise(lambda p: p, LONG_TAIL, (10.0, 0.7)), "lo < hi"),
    (lambda: check_noise(lambda p: p, PLANE, RANGE), "scalar"),
    (lambda: truncated_normal_mean(torch.zeros(1), 1.0, (10.0, 0.7)), "lo < hi"),
    (lambda: central_interval(torch.zeros(1), 1.0, (10.0, 0.7)), "lo < hi"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_file_that_holds_no_map_is_refused(tmp_path):
    LONG_TAIL.save(tmp_path / "histogram.json")
    with pytest.raises(ValueError, match="expected a BalanceMap"):
        BalanceMap.load(tmp_path / "histogram.json")


def test_beyond_is_a_boolean_per_label():
    loss = MSELoss(label_range=RANGE)
    for wrong in (torch.ones(1).bool(), torch.ones(2)):
        with pytest.raises(ValueError, match="boolean beyond"):
            loss(torch.ones(2), torch.ones(2), None, wrong)


def laplace_mean(preds, sigma, label_range):
    return build_family("laplace", 1.0, 1.0).readout(preds, sigma, label_range)


@pytest.mark.parametrize("read", [truncated_normal_mean, central_interval, laplace_mean])
@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        *((value, "positive noise_sigma") for value in (0.0, -1.0, NAN, INF)),
        *((torch.ones(shape), r"of shape \(4,\)") for shape in ((4, 1), (1, 4), (2,))),
    ],
)
def test_a_sigma_that_is_not_positive_or_would_broadcast_is_an_error(read, sigma, message):
    for label_range in (RANGE, None)[: 2 if read is central_interval else 1]:
        with pytest.raises(ValueError, match=message):
            read(torch.zeros(4), sigma, label_range)
