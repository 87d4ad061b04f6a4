"""What histograms and mixtures refuse, with what is to be done about it."""

import numpy as np
import pytest
import torch

from depthbal.priors import GaussianMixture, Histogram

NAN, INF = np.nan, np.inf
EDGES = np.linspace(0.7, 10.0, 94)
FEW_BINS = Histogram([0.0, 1.0, 2.0, 3.0], [8, 1, 1])
UNEVEN = Histogram([1.0, 1.5, 3.0, 3.2, 7.0], [4.0, 3.0, 2.0, 8.0])
MIXTURE = GaussianMixture([0.5, 0.5], [0.0, 1.0], [1.0, 1.0])
FULL = [[1.0, 0.5], [0.5, 1.0]]


def fit(data, n_components=1, **settings):
    return GaussianMixture.fit(data, n_components, **settings)


REFUSED = [
    (lambda: Histogram([1.0, 1.0]), "increasing"),
    (lambda: Histogram([0.0, NAN, 1.0]), "increasing"),
    (lambda: Histogram([0.0, 1.0, INF]), "finite"),
    (lambda: Histogram([0.0, 1.0], [1.0, 2.0]), "expected 1 counts"),
    (lambda: Histogram([0.0, 1.0], [-1.0]), "no negative counts"),
    (lambda: Histogram([0.0, 1.0], [NAN]), "finite"),
    (lambda: Histogram([0.0, 1.0], quantum=0.0), "positive quantum"),
    (lambda: Histogram([0.0, 1.0], beyond=-1), "negative"),
    (lambda: Histogram(EDGES).update([1.0, NAN, INF]), "1 NaN or -inf"),
    (lambda: Histogram(EDGES).mean, "empty"),
    (lambda: Histogram([0.0, 1.0], [1]).places(3, "log"), "above 0"),
    (
        lambda: Histogram([1.0, 2.0, 3.0, 4.0], [0, 0, 1]).places(5, "quantile", (1.0, 2.0)),
        "5 places are too many quantiles",
    ),
    # worlds
    (lambda: UNEVEN.relative_to("uniform", 1.1), r"tau in \[0, 1\], got 1.1"),
    (lambda: UNEVEN.relative_to("unifrom"), "cannot read unifrom"),
    (lambda: Histogram([0.0, 1.0, 2.0], [1, 1]).relative_to("log_uniform"), r"bin 0 \[0, 1\]"),
    (
        lambda: Histogram([0.0, 1000.0, 2000.0], [1, 1]).relative_to("exp_uniform"),
        "not positive and finite.*bin 1",
    ),
    (
        lambda: UNEVEN.relative_to(Histogram(UNEVEN.edges, [1, 0, 0, 1])),
        r"infinite.*bin 1 \[1.5, 3\] and 1 more",
    ),
    (
        lambda: Histogram(UNEVEN.edges, [1, 1, 0, 1]).relative_to(UNEVEN),
        r"zero.*bin 2 \[3, 3.2\]:",
    ),
    (
        lambda: UNEVEN.relative_to(Histogram([1.0, 7.0, 8.0], [3, 1])),
        "25.00% of its mass outside",
    ),
    (lambda: Histogram([1.0, 2.0]).relative_to("uniform"), "empty"),
    # kernels that are no mixtures
    *(
        (lambda world=world, tau=tau: MIXTURE.relative_to(world, tau), r"fit\(histogram\.relative")
        for world, tau in (("log_uniform", 1.0), ("uniform", 0.5), ("far.json", 1.0))
    ),
    # mixtures
    (lambda: GaussianMixture([1.0], [1.0, 2.0], [1.0]), "expected weights"),
    (lambda: GaussianMixture([-1.0, 2.0], [1.0, 2.0], [1.0, 1.0]), "not negative"),
    (lambda: GaussianMixture([0.0], [1.0], [1.0]), "sum to more than 0"),
    (lambda: GaussianMixture([1.0], [1.0], [INF]), "finite weights, means and variances"),
    (lambda: GaussianMixture([1.0], [1.0], [-1.0]), "variances"),
    (lambda: GaussianMixture([0.5, 0.5], FULL, FULL), "covariance of all"),
    (
        lambda: GaussianMixture.from_histogram(FEW_BINS).log_density(torch.zeros(1)),
        "without point masses",
    ),
    (lambda: fit(FEW_BINS, noise_sigma=NAN), "positive, finite noise_sigma"),
    (lambda: fit(FEW_BINS, 0), "at least 1 component"),
    (lambda: fit(FEW_BINS, variance_floor=0.0), "variance_floor"),
    (lambda: fit(Histogram(EDGES)), "empty"),
    (lambda: fit(torch.tensor([1.0, INF])), "finite samples"),
    (lambda: fit([2.0, 2.0]), "labels that vary"),
    (lambda: fit([1.0, 2.0], 3), "n_components"),
    (lambda: fit(FULL, covariance_type="tied"), "'full' or 'diag', got 'tied'"),
    (lambda: fit([1.0, 2.0], variance_floor=NAN), "finite variance_floor"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_no_prior_is_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*prior\.json: No such file"),
        ('{"kind": "Histo', r"cannot read .*prior\.json.*line 1"),
        ('{"kind": "Histogram"}', "expected a GaussianMixture.*its kind is 'Histogram'"),
        ('{"kind": "GaussianMixture", "weights": [1.0]}', r"prior\.json.*it lacks 'means'"),
        (
            '{"kind": "GaussianMixture", "weights": [-1.0], "means": [1.0], "variances": [1.0]}',
            r"prior\.json.*weights that are not negative",
        ),
    ],
)
def test_a_missing_foreign_or_incomplete_file_is_an_error_that_names_it(tmp_path, text, message):
    if text is not None:
        (tmp_path / "prior.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        GaussianMixture.load(tmp_path / "prior.json")
