"""The solvers, checked against each other and against difference quotients."""

import pytest
import torch

from depthbal.losses import GAILoss
from depthbal.priors import GaussianMixture
from depthbal.synthetic import (
    METHODS,
    NONLINEAR_COLUMNS,
    Method,
    Settings,
    draw_data,
    find_method,
    parse_column,
    run_benchmark,
    solve,
    summary,
)
from depthbal.synthetic.derivatives import GivenNoise, Part, derivatives
from depthbal.synthetic.descent import descend
from depthbal.synthetic.methods import Task
from depthbal.synthetic.sgd import Recipe, published_recipe, train


@pytest.mark.parametrize("column", ["exponential_low", "mvn_moderate"])
@pytest.mark.parametrize("name", ["vanilla", "reweight", "gai_learned", "bmc_learned"])
def test_newton_and_lbfgs_find_the_same_optimum(column, name):
    data = draw_data(parse_column(column), [0, 1], n_labels=256)
    settings = Settings(batch_size=64, n_components=4 if column == "exponential_low" else None)
    newton = solve(data, find_method(name), settings=settings)
    lbfgs = descend(data, find_method(name), settings)
    torch.testing.assert_close(newton.test_preds, lbfgs.test_preds, rtol=0, atol=2e-4)
    if newton.noise_sigma is not None:
        torch.testing.assert_close(newton.noise_sigma, lbfgs.noise_sigma, rtol=1e-4, atol=0)


@pytest.mark.parametrize("column", ["normal_low", "mvn_low"])
def test_hessians_are_symmetric_positive_and_those_of_autograd(column):
    data = draw_data(parse_column(column), [0], n_labels=32)
    prior = data.column.labels.prior(0)
    options = {"reduction": "none", "scale": "none"}
    loss = find_method("gai").build(Task(data, 0, Settings(), GivenNoise(1.3), **options))
    natural, precision = data.labels * 0.7, torch.tensor([0.6]).double()
    parts = [Part(loss, 0, slice(0, 32))]
    found = derivatives(parts, data, natural, precision, learned=True)

    def formula(point):  # one component: log N(y; p, s^2) against log N(p; m, C + s^2)
        p, s2 = point[:-1] / point[-1], 1 / point[-1]
        eye = torch.eye(len(p)).double()
        covariance = prior.variances[0].reshape(len(p), -1)
        evidence = torch.distributions.MultivariateNormal(
            prior.means[0].reshape(-1), covariance + s2 * eye
        )
        noise = torch.distributions.MultivariateNormal(p, s2 * eye)
        return evidence.log_prob(p) - noise.log_prob(label)

    for row in (0, 7):
        label = data.labels[0, row]
        point = torch.cat([natural[0, row], precision])
        expected = torch.autograd.functional.hessian(formula, point)
        torch.testing.assert_close(found.hessian[0, row], expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.value[0, row], formula(point))
    assert torch.linalg.eigvalsh(found.hessian[0])[:, 0].min() > -1e-3


def test_a_sigma_that_diverges_is_reported_at_its_bound():
    data = draw_data(parse_column("normal_high"), [0])
    narrow = GaussianMixture([1.0], [5.0], [0.1])  # residuals vary more: about 0.2
    method = Method("test", lambda task: GAILoss(narrow, **task.balanced), learned=True)
    fit = solve(data, method)
    assert fit.noise_sigma.item() == pytest.approx(1000)
    assert "bound" in fit.notes[0]
    assert "seed 0" in fit.notes[0]
    assert torch.isfinite(fit.test_preds).all()


def test_all_methods_serve_scalars_and_say_what_vectors_lack():
    scalars = list(run_benchmark(["normal_low"], list(METHODS), [0]))
    assert all(0 < cell.errors[0] < 5 for cell in scalars)
    vectors = {c.method: c for c in run_benchmark(["mvn_low"], ["vanilla", "bni"], [0])}
    assert vectors["vanilla"].errors
    assert not vectors["bni"].errors
    assert "scalar" in vectors["bni"].notes[0]


@pytest.mark.parametrize("column", ["square_low", "exp_low", "log_low", "tan_low"])
def test_networks_of_nonlinear_tasks_gain_from_balancing(column):
    assert column in NONLINEAR_COLUMNS
    cells = run_benchmark([column], ["vanilla", "gai"], [0])
    vanilla, gai = (summary(cell.errors)["median"] for cell in cells)
    assert gai < 0.5 * vanilla


@pytest.mark.parametrize("name", ["vanilla", "gai_learned", "bmc"])
def test_sgd_converges_to_the_exact_optimum_where_its_rate_suits(name):
    data = draw_data(parse_column("normal_low"), [0], n_labels=256)
    settings = Settings(batch_size=256)  # one batch: nothing is stochastic
    exact = solve(data, find_method(name), settings=settings)
    recipe = Recipe(epochs=400, optimizer="adam", lr=0.1, sigma_lr=0.03)
    trained = train(data, find_method(name), settings, recipe)
    error, expected = (data.test_errors(fit.test_preds).item() for fit in (trained, exact))
    assert error == pytest.approx(expected, rel=0.1, abs=0.02)


def test_the_recipes_are_the_supplements():
    line, plane = (published_recipe(parse_column(name)) for name in ("normal_low", "mvn_low"))
    assert (line.epochs, line.optimizer, line.lr, line.sigma_lr) == (2000, "sgd", 1e-3, 1e-3)
    assert (plane.epochs, plane.optimizer, plane.lr, plane.sigma_lr) == (10_000, "adam", 0.2, 0.01)
    assert line.batch_size == plane.batch_size == 256


def test_results_do_not_depend_on_the_other_seeds():
    together = next(iter(run_benchmark(["exponential_high"], ["bmc_learned"], [4, 5])))
    alone = next(iter(run_benchmark(["exponential_high"], ["bmc_learned"], [5])))
    assert together.errors[1] == pytest.approx(alone.errors[0], rel=1e-6)
