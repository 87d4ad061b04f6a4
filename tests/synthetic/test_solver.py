"""The solver against a general minimiser, and at its limits."""

import pytest
import torch

from depthbal.losses import FixedNoise, GAILoss, LearnedNoise
from depthbal.priors import GaussianMixture
from depthbal.synthetic import (
    METHODS,
    Method,
    Settings,
    draw_data,
    parse_column,
    run_benchmark,
    solve,
)
from depthbal.synthetic.methods import Task


def descend(data, method, settings, size):
    """The same loss on raw inputs, over p and log sigma, by torch's L-BFGS from least squares."""
    inputs, labels = (part[0, data.counted[0]] for part in (data.inputs, data.labels))
    noise = LearnedNoise(1.5) if method.learned else FixedNoise(1.0)
    loss = method.build(Task(data.column, data.seeds[0], labels, settings, noise)).double()
    scale = inputs.std(0)  # one unit of all weights
    design = torch.nn.functional.pad(inputs / scale, (0, 1), value=1.0)
    weights = torch.nn.Parameter(torch.linalg.lstsq(design, labels).solution.contiguous())
    optimizer = torch.optim.LBFGS(
        [weights, *loss.parameters()],
        max_iter=1000,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        preds, target = design @ weights, labels
        if not loss.event_dim:
            preds, target = preds[:, 0], target[:, 0]
        total = sum(loss(p, y) for p, y in zip(preds.split(size), target.split(size), strict=True))
        (total / len(labels)).backward()
        return total / len(labels)

    optimizer.step(closure)
    test = torch.nn.functional.pad(data.test_inputs[0] / scale, (0, 1), value=1.0)
    return (test @ weights).detach(), noise(labels).detach()


@pytest.mark.parametrize("column", ["exponential_low", "mvn_moderate"])
@pytest.mark.parametrize("name", ["vanilla", "reweight", "gai_learned", "bmc_learned"])
def test_a_general_minimiser_finds_the_same_optimum(column, name):
    data = draw_data(parse_column(column), [1], n_labels=256)
    assert data.counted.all()
    method = METHODS[name]
    settings = Settings(batch_size=64, n_components=4 if column == "exponential_low" else None)
    fit = solve(data, method, settings)
    preds, sigma = descend(data, method, settings, 64 if method.batched else 256)
    torch.testing.assert_close(fit.test_preds[0], preds, rtol=0, atol=2e-4)
    if method.learned:
        torch.testing.assert_close(fit.noise_sigma[0], sigma, rtol=1e-4, atol=0)


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


def test_labels_out_of_range_do_not_count():
    data = draw_data(parse_column("exponential_0.2"), [0], n_labels=256)
    assert not data.counted.all()
    hidden = data._replace(labels=data.labels.where(data.counted[..., None], 1e3))
    for name in ("reweight", "bmc"):
        expected = solve(data, METHODS[name]).test_preds
        torch.testing.assert_close(solve(hidden, METHODS[name]).test_preds, expected)
