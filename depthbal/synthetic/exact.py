"""The exact solver: every method at its optimum, in float64."""

from torch import Tensor

from depthbal.synthetic.data import SyntheticData
from depthbal.synthetic.derivatives import Derivatives, GivenNoise, Part, derivatives
from depthbal.synthetic.descent import descend
from depthbal.synthetic.fits import Fit, note_bound
from depthbal.synthetic.linear import Whitening, balanced_start
from depthbal.synthetic.methods import Method, Settings, Task, batches
from depthbal.synthetic.newton import Optimum, minimise


def solve_exactly(data: SyntheticData, method: Method, settings: Settings) -> Fit:
    """Return the optimum of a method for all seeds.

    Linear regressors of convex losses come from Newton's method, all seeds at once; BMC sees a
    fixed partition into batches. Other losses, and the networks of the non-linear tasks, are
    minimised by L-BFGS, seed by seed.

    Args:
        data: Of a column.
        method: What to minimise.
        settings: Batch size, components, noise scale.

    Example:
        >>> from depthbal.synthetic import draw_data, find_method, parse_column
        >>> data = draw_data(parse_column("normal_low"), [0])
        >>> fit = solve_exactly(data, find_method("gai"), Settings())
        >>> data.test_errors(fit.test_preds).item() < 0.1
        True
    """
    if data.column.link is not None or not method.convex:
        return descend(data, method, settings)
    return _newton(data, method, settings)


def _newton(data: SyntheticData, method: Method, settings: Settings) -> Fit:
    whitening = Whitening.of(data)
    features = whitening.features(data.inputs)
    rows = batches(data, method, settings)
    parts = []
    for index in range(len(data.seeds)):
        noise = GivenNoise(settings.noise_sigma)
        loss = method.build(Task(data, index, settings, noise, reduction="none", scale="none"))
        parts += [Part(loss, index, batch) for batch in rows]
    weights = method.label_weights(data)

    def evaluate(coefficients: Tensor, precision: Tensor, active: Tensor) -> Derivatives:
        chosen = [part for part in parts if active[part.seed]]
        natural = features @ coefficients
        return derivatives(chosen, data, natural, precision, method.learned, weights)

    start = balanced_start(data, features, None if method.learned else settings.noise_sigma)
    counts = data.counted.sum(1)
    optimum = minimise(evaluate, features, counts, *start, method.learned)
    preds = whitening.features(data.test_inputs) @ optimum.coefficients
    sigma = optimum.noise_sigma if method.learned else None
    return Fit(preds, sigma, optimum.iterations, _notes(data, optimum))


def _notes(data: SyntheticData, optimum: Optimum) -> tuple[str, ...]:
    notes = []
    for index, seed in enumerate(data.seeds):
        if optimum.at_bound[index]:
            notes.append(note_bound(seed, float(optimum.noise_sigma[index])))
        if not optimum.converged[index]:
            notes.append(f"seed {seed}: not converged after {optimum.iterations} iterations")
    return tuple(notes)
