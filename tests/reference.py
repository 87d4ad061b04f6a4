"""Slow, obvious twins of every fast path; the benchmarks import the same ones."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from scipy.ndimage import correlate1d
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.nn import functional


def balanced_mse(
    preds: Tensor, target: Tensor, weights: Tensor, means: Tensor, variances: Tensor, sigma: Tensor
) -> Tensor:
    """Mean Balanced MSE over a mixture with one N x K matrix, as it is usually copied."""
    total = variances + sigma**2
    log_normal = -0.5 * (preds[:, None] - means) ** 2 / total - 0.5 * (2 * math.pi * total).log()
    evidence = torch.logsumexp(weights.log() + log_normal, dim=1)
    data = (preds - target) ** 2 / (2 * sigma**2) + sigma.log() + 0.5 * math.log(2 * math.pi)
    return ((data + evidence) * 2 * sigma.detach() ** 2).mean()


def batch_monte_carlo(preds: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    """Mean BMC of (N,) or (N, D) as a cross entropy over N x N pairs, less its constant log N."""
    apart = (preds[:, None] - target[None, :]).view(len(preds), len(target), -1)
    logits = -(apart**2).sum(2) / (2 * sigma**2)
    own = torch.arange(len(preds), device=preds.device)
    entropy = torch.nn.functional.cross_entropy(logits, own) - math.log(len(preds))
    return entropy * 2 * sigma.detach() ** 2


def resnet_mff(state: dict[str, Tensor], images: Tensor, training: bool) -> Tensor:
    """Run the published ResNet-50 MFF network from nothing but its named parameters."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return functional.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding)

    def norm(name: str, x: Tensor) -> Tensor:
        scale, shift = state[f"{name}.weight"], state[f"{name}.bias"]
        if training:
            return functional.batch_norm(x, None, None, scale, shift, training=True)
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, scale, shift)

    def bottleneck(name: str, x: Tensor, stride: int) -> Tensor:
        y = norm(f"{name}.bn1", conv(f"{name}.conv1", x)).relu()
        y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, stride)).relu()
        y = norm(f"{name}.bn3", conv(f"{name}.conv3", y))
        if f"{name}.downsample.0.weight" in state:
            x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
        return (x + y).relu()

    def up(name: str, x: Tensor, size: tuple[int, ...]) -> Tensor:
        x = functional.interpolate(x, size, mode="bilinear", align_corners=False)
        y = norm(f"{name}.bn1", conv(f"{name}.conv1", x)).relu()
        y = norm(f"{name}.bn1_2", conv(f"{name}.conv1_2", y))
        return (y + norm(f"{name}.bn2", conv(f"{name}.conv2", x))).relu()

    x = norm("E.bn1", conv("E.conv1", images, stride=2)).relu()
    x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    stages = []
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            x = bottleneck(f"E.layer{layer}.{block}", x, 2 if layer > 1 and block == 0 else 1)
        stages.append(x)
    full = tuple(2 * side for side in stages[0].shape[2:])

    x = norm("D.bn", conv("D.conv", x)).relu()
    x = up("D.up1", x, stages[2].shape[2:])
    x = up("D.up2", x, stages[1].shape[2:])
    x = up("D.up3", x, stages[0].shape[2:])
    x = up("D.up4", x, full)
    fused = torch.cat([up(f"MFF.up{i + 1}", stage, full) for i, stage in enumerate(stages)], 1)
    fused = norm("MFF.bn", conv("MFF.conv", fused)).relu()
    x = torch.cat([x, fused], 1)
    x = norm("R.bn0", conv("R.conv0", x)).relu()
    x = norm("R.bn1", conv("R.conv1", x)).relu()
    return conv("R.conv2", x)


def plain_depth_scores(preds: np.ndarray, target: np.ndarray) -> dict[str, float | int | None]:
    """All depth metrics of two flat lists of metres, straight from their definitions."""
    p, t = preds.astype(np.float64), target.astype(np.float64)
    names = ["rmse", "mse", "mae", "abs_rel", "sq_rel", "rmse_log", "log10", "silog"]
    names += ["delta1", "delta2", "delta3", "bias"]
    if not len(t):
        return {**dict.fromkeys(names), "count": 0}
    q = np.maximum(p, 1e-3)
    d = np.log(q) - np.log(t)
    ratio = np.maximum(q / t, t / q)
    mse = np.mean((p - t) ** 2)
    values = [
        np.sqrt(mse),
        mse,
        np.mean(np.abs(p - t)),
        np.mean(np.abs(p - t) / t),
        np.mean((p - t) ** 2 / t),
        np.sqrt(np.mean(d**2)),
        np.mean(np.abs(np.log10(q) - np.log10(t))),
        100 * np.sqrt(max(np.mean(d**2) - np.mean(d) ** 2, 0)),
        *(np.mean(ratio < 1.25**k) for k in (1, 2, 3)),
        np.mean(p - t),
    ]
    return {**dict(zip(names, map(float, values), strict=True)), "count": len(t)}


def plain_align(preds: np.ndarray, target: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    """A prediction (h, w) as it fits its truth best, by the normal equations of NumPy."""
    used = [(p, y) for p, y, m in zip(preds.flat, target.flat, mask.flat, strict=True) if m]
    p, y = np.array([(p, y) for p, y in used if np.isfinite(p) and p > 0 and y > 0], float).T
    if how == "median":
        return preds * np.median(y) / np.median(p)
    if how == "depth":
        (a, b), *_ = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), y, rcond=None)
        return a * preds + b
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / p, np.ones_like(p)], 1), 1 / y, rcond=None)
    return 1 / np.maximum(a / preds + b, 1 / y.max())


def plain_depth_bin(depth: float) -> int:
    """The bin of a depth as the benchmark's code has it, in float32."""
    return min(int(np.float32(depth) * np.float32(10)), 99)


def plain_evaluation(
    preds: np.ndarray, target: np.ndarray, mask: np.ndarray, shots: list[str | None]
) -> dict[str, Any]:
    """Score images with Python loops over pixels, bins and images; 100 bins of 0.1 m."""
    pixels: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for i in range(len(target)):
        rows = zip(preds[i].ravel(), target[i].ravel(), mask[i].ravel(), strict=True)
        for p, t, counts in rows:
            if counts and shots[plain_depth_bin(t)] is not None:
                pixels.setdefault((i, plain_depth_bin(t)), []).append((p, t))

    def scores_of(images: set[int], bins: set[int]) -> dict[str, float | int | None]:
        pairs = [x for key in pixels if key[0] in images and key[1] in bins for x in pixels[key]]
        array = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        return plain_depth_scores(array[:, 0], array[:, 1])

    def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
        filled = [row for row in rows if row["count"]]
        return {k: float(np.mean([r[k] for r in filled])) if filled else None for k in rows[0]}

    everything = set(range(len(target)))
    groups = {"overall": {b for b, shot in enumerate(shots) if shot}}
    groups |= {s: {b for b, x in enumerate(shots) if x == s} for s in ("many", "medium", "few")}
    return {
        **{name: scores_of(everything, bins) for name, bins in groups.items()},
        "bins": {b: scores_of(everything, {b}) for b in sorted(groups["overall"])},
        "per_image_mean": {
            name: mean_of([scores_of({i}, bins) for i in everything])
            for name, bins in groups.items()
        },
        "per_bin_mean": {
            name: mean_of([scores_of(everything, {b}) for b in bins])
            for name, bins in groups.items()
        },
    }


def trace_by_loops(camera: Any, solids: tuple[Any, ...]) -> tuple[Any, Any]:
    """Depth and index of the nearest solid at every pixel: one pixel, one solid, one face a time.

    The rotation matrices, the pixel's ray and every surface equation are written out anew in
    float64; nothing is shared with the renderer but the description of camera and solids.
    """
    depth = np.full((camera.height, camera.width), np.inf)
    index = np.zeros((camera.height, camera.width), int)
    cy, sy = math.cos(camera.yaw), math.sin(camera.yaw)
    cp, sp = math.cos(camera.pitch), math.sin(camera.pitch)
    cr, sr = math.cos(camera.roll), math.sin(camera.roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    for row in range(camera.height):
        for column in range(camera.width):
            a = (column + 0.5 - camera.width / 2) / camera.focal
            b = (row + 0.5 - camera.height / 2) / camera.focal
            ray = turn @ nod @ np.array([cr * a - sr * b, -(sr * a + cr * b), 1.0])
            for number, solid in enumerate(solids):
                reached = min(_surfaces(solid, np.array(camera.position), ray), default=math.inf)
                if reached < depth[row, column]:
                    depth[row, column], index[row, column] = reached, number
    return depth, index


def _surfaces(solid: Any, start: Any, ray: Any) -> list[float]:
    """All positive multiples of a ray at which it crosses the surface of a solid."""
    c, s = math.cos(solid.yaw), math.sin(solid.yaw)
    own = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    start, ray, half = own @ (start - np.array(solid.centre)), own @ ray, np.array(solid.half)
    rounded = {0: [], 1: [0, 2], 2: [0, 1, 2]}[solid.kind]  # axes along which it is round
    found = []
    for axis in [axis for axis in range(3) if axis not in rounded]:
        for sign in (-1, 1):
            if ray[axis] == 0:
                continue
            t = (sign * half[axis] - start[axis]) / ray[axis]
            point = start + t * ray
            others = [other for other in range(3) if other != axis and other not in rounded]
            in_box = all(abs(point[other]) <= half[other] for other in others)
            in_circle = not rounded or np.sum(point[rounded] ** 2) <= half[0] ** 2
            found += [t] if in_box and in_circle else []
    if rounded:
        p, q = start[rounded], ray[rounded]
        for t in np.roots([q @ q, 2 * p @ q, p @ p - half[0] ** 2]):
            on_side = solid.kind == 2 or abs(start[1] + t.real * ray[1]) <= half[1]
            found += [float(t.real)] if t.imag == 0 and on_side else []
    return [float(t) for t in found if t > 0]


def plain_loss(name: str, preds: list[float], target: list[float], **options: Any) -> float:
    """Mean of an unbalanced loss, one entry at a time in Python floats."""
    errors = [abs(p - t) for p, t in zip(preds, target, strict=True)]
    if name == "SILogLoss":
        d = [math.log(p) - math.log(t) for p, t in zip(preds, target, strict=True)]
        mean = sum(d) / len(d)
        scale_invariance: float = options["scale_invariance"]
        return sum(x * x for x in d) / len(d) - scale_invariance * mean**2
    total = 0.0
    for e in errors:
        if name == "HuberLoss":
            delta = options["delta"]
            total += e * e / 2 if e <= delta else delta * (e - delta / 2)
        elif name == "FocalRLoss":
            x = options["beta"] * e
            sigmoid = options["activation"] == "sigmoid"
            factor = 2 / (1 + math.exp(-x)) - 1 if sigmoid else math.tanh(x)
            total += (e if options["error"] == "absolute" else e * e) * factor ** options["gamma"]
        else:
            total += {"L1Loss": e, "MSELoss": e * e}[name]
    return total / len(errors)


def plain_label_weights(
    counts: list[float],
    weighting: str,
    clip: tuple[float, float] | None,
    kernel: list[float] | None,
) -> list[float]:
    """Weight per bin of inverse, square-root, clipped and LDS re-weighting; mean 1 over labels."""
    rarity = [min(max(n, clip[0]), clip[1]) if clip else n for n in counts]
    if weighting == "sqrt_inverse":
        rarity = [math.sqrt(n) for n in rarity]
    if kernel:
        rarity = correlate1d(np.array(rarity), kernel, mode="reflect").tolist()
    rarest = min(n for n in rarity if n > 0)
    weights = [1 / (n or rarest) for n in rarity]
    mean = sum(n * w for n, w in zip(counts, weights, strict=True)) / sum(counts)
    return [w / mean for w in weights]


def training_posterior_mean(
    location: float, weights: list[float], means: list[float], variances: list[float], sigma: float
) -> float:
    """E[y | p] under p_train(y) N(y; p, sigma^2) as a sum of the components' posterior means."""
    logs, centres = [], []
    for w, mu, v in zip(weights, means, variances, strict=True):
        total = v + sigma**2
        logs.append(math.log(w) - 0.5 * math.log(total) - (location - mu) ** 2 / (2 * total))
        centres.append((v * location + sigma**2 * mu) / total)
    shares = [math.exp(x - max(logs)) for x in logs]
    return sum(s * c for s, c in zip(shares, centres, strict=True)) / sum(shares)


def noise_energy(residual: float, sigma: float, kind: str, shape: float | None = None) -> float:
    """Negative log density, up to a constant, of Laplace, Huber (delta) or Student noise (df)."""
    r = abs(residual)
    if kind == "laplace":
        return r / sigma
    assert shape is not None
    if kind == "student":
        return (shape + 1) / 2 * math.log(1 + r * r / (shape * sigma * sigma))
    return (r * r / 2 if r <= shape else shape * (r - shape / 2)) / sigma**2


def noise_log_evidence(
    preds: Tensor,
    weights: Tensor,
    locations: Tensor,
    sigma: Tensor,
    kind: str,
    shape: float | None = None,
    variances: Tensor | None = None,
) -> Tensor:
    """Log evidence over point masses, of normal noise over normals too, all pairs at once."""
    points, scale = preds[..., None], sigma[..., None]
    noise: torch.distributions.Distribution
    if kind == "huber":
        assert shape is not None
        distance = (points - locations).abs()
        tail = shape * (distance - shape / 2)
        core = torch.erf(shape / (scale * math.sqrt(2)))
        tails = 2 * scale**2 / shape * torch.exp(-((shape / scale) ** 2) / 2)
        normaliser = scale * math.sqrt(2 * math.pi) * core + tails
        energy = torch.where(distance <= shape, distance**2 / 2, tail) / scale**2
        return torch.logsumexp(weights.log() - energy - normaliser.log(), dim=-1)
    if kind == "student":
        noise = torch.distributions.StudentT(shape, points, scale)  # type: ignore[arg-type]
    elif kind == "laplace":
        noise = torch.distributions.Laplace(points, scale)
    else:
        spread = 0 if variances is None else variances
        noise = torch.distributions.Normal(points, (spread + scale**2).sqrt())
    return torch.logsumexp(weights.log() + noise.log_prob(locations), dim=-1)  # type: ignore[no-untyped-call]


def noise_mean_on_range(
    location: float,
    sigma: float,
    label_range: tuple[float, float],
    kind: str,
    shape: float | None = None,
) -> float:
    """Mean of ``noise_energy`` around a location on a range, by quadrature."""
    from scipy.integrate import quad

    low, high = label_range
    peak = min(max(location, low), high)
    least = noise_energy(peak - location, sigma, kind, shape)
    decay, ends = sigma, [location]
    if kind == "huber" and shape is not None:
        decay = max(sigma, sigma**2 / shape)
        ends = [location - shape, location, location + shape]
    steps = [s * decay * k for s in (-1, 1) for k in (0.01, 0.1, 0.5, 2, 5, 10, 20, 40, 160, 640)]
    near = sorted({low, high, peak, *ends, *(peak + step for step in steps)})
    cuts = [cut for cut in near if low <= cut <= high]

    def integral(power: int) -> float:
        def integrand(y: float) -> float:
            energy = noise_energy(y - location, sigma, kind, shape)
            return (y - peak) ** power * math.exp(least - energy)

        parts = [
            quad(integrand, a, b, epsabs=1e-13, epsrel=1e-12)[0]
            for a, b in itertools.pairwise(cuts)
        ]
        return math.fsum(parts)

    return peak + integral(1) / integral(0)


def fds_bins(labels: Tensor, edges: list[float]) -> Tensor:
    """The bin of every label, one after the other; -1 for NaN, which stands for no label."""
    bins = [
        -1 if math.isnan(label) else sum(label >= edge for edge in edges[1:-1])
        for label in labels.flatten().tolist()
    ]
    return torch.tensor(bins).reshape(labels.shape)


def fds_moments(rows: Tensor, bins: Tensor, number: int) -> list[tuple[int, Tensor, Tensor] | None]:
    """Count, mean and unbiased variance of the features (N, C) of every bin with at least two."""
    found: list[tuple[int, Tensor, Tensor] | None] = []
    for bin_ in range(number):
        own = rows[bins == bin_]
        found.append((len(own), own.mean(0), own.var(0)) if len(own) > 1 else None)
    return found


def fds_running(epochs: list[list[Any]], momentum: float) -> list[tuple[Tensor, Tensor] | None]:
    """Running mean and variance per bin after several epochs of `fds_moments`."""
    running: list[tuple[Tensor, Tensor] | None] = [None] * len(epochs[0])
    for moments in epochs:
        for bin_, new in enumerate(moments):
            old = running[bin_]
            if new is not None and old is None:
                running[bin_] = (new[1], new[2])
            elif new is not None and old is not None:
                pairs = zip(old, new[1:], strict=True)
                mixed = [momentum * o + (1 - momentum) * n for o, n in pairs]
                running[bin_] = (mixed[0], mixed[1])
    return running


def fds_smoothed(
    running: list[tuple[Tensor, Tensor] | None], bin_: int, kernel: list[float]
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a bin, smoothed over the known bins under the kernel."""
    last, half = len(running) - 1, len(kernel) // 2
    total, sums = 0.0, [torch.zeros(()), torch.zeros(())]
    for offset, weight in zip(range(-half, half + 1), kernel, strict=True):
        near = abs(bin_ + offset)
        near = last - abs(last - near)  # mirrored at both ends
        known = running[near]
        if known is not None:
            total += weight
            sums = [s + weight * moment for s, moment in zip(sums, known, strict=True)]
    return sums[0] / total, sums[1] / total


def fds_calibrate(
    rows: Tensor,
    bins: Tensor,
    running: list[tuple[Tensor, Tensor] | None],
    kernel: list[float],
    clip: tuple[float, float],
) -> Tensor:
    """Calibrate the features (N, C) of one bin after the other with the published formula."""
    places, parts = [(bins < 0).nonzero().flatten()], [rows[bins < 0]]
    for bin_, own in enumerate(running):
        places.append((bins == bin_).nonzero().flatten())
        part = rows[places[-1]]
        if own is not None:
            (m1, v1), (m2, v2) = own, fds_smoothed(running, bin_, kernel)
            factor = (v2 / v1).clamp(*clip).sqrt()
            part = torch.where(v1 > 0, (part - m1) * factor + m2, part)
        parts.append(part)
    return torch.cat(parts)[torch.argsort(torch.cat(places))]


def plain_joint_histogram(
    preds: list[float], target: list[float], edges: list[float], scored: list[bool]
) -> list[list[int]]:
    """Labels per bin of the truth and column of the prediction, by NumPy's histogram in float32."""
    ends = np.array(edges, np.float32).astype(np.float64)
    ends[-1] = np.nextafter(ends[-1], np.inf)  # its last bin holds its upper end
    rows, columns = np.append(ends[:-1], np.inf), [-np.inf, *ends, np.inf]
    counts, _, _ = np.histogram2d(target, preds, [rows, columns])
    found: list[list[int]] = (counts * np.array(scored)[:, None]).astype(int).tolist()
    return found


def plain_label_scores(preds: np.ndarray, target: np.ndarray) -> dict[str, float | int | None]:
    """All metrics of any scalar label, two flat lists, straight from their definitions."""
    from scipy.stats import gmean

    p, t = preds.astype(np.float64), target.astype(np.float64)
    if not len(t):
        return {**dict.fromkeys(["rmse", "mse", "mae", "gm", "bias"]), "count": 0}
    mse = float(np.mean((p - t) ** 2))
    return {
        "rmse": math.sqrt(mse),
        "mse": mse,
        "mae": float(np.mean(np.abs(p - t))),
        "gm": float(gmean(np.maximum(np.abs(p - t), 1e-3))),
        "bias": float(np.mean(p - t)),
        "count": len(t),
    }


def resampled_mean_over_bins(
    sums: np.ndarray, terms: list[str], term: str, weights: np.ndarray, bins: list[int]
) -> list[float]:
    """Mean over non-empty bins of a term's mean, one resample, bin and image at a time."""
    found = []
    for counts in weights:
        of_bins = []
        for b in bins:
            pixels = total = 0.0
            for image, times in enumerate(counts):
                pixels += times * sums[image, b, terms.index("count")]
                total += times * sums[image, b, terms.index(term)]
            if pixels > 0:
                of_bins.append(total / pixels)
        found.append(sum(of_bins) / len(of_bins) if of_bins else math.nan)
    return found


def calibrated(
    samples: list[tuple[int, float, float]],
    cells: list[float],
    edges: list[float],
    tau: float,
    pseudo_scenes: float = 1.0,
) -> list[tuple[float, float, float, float]]:
    """The calibration of balancing, label by label: prediction, mean and interval of each cell.

    Samples are (scene, prediction, label); cells and edges bound the predictions and the labels.
    The world is uniform. The label is spread evenly within its bin for the quantiles.
    """

    def place(value: float, bounds: list[float]) -> int:
        return sum(bound <= value for bound in bounds) - 1

    bins = range(len(edges) - 1)
    share = [sum(place(y, edges) == b for _, _, y in samples) / len(samples) for b in bins]
    rows = []
    for c in range(len(cells) - 1):
        inside = [sample for sample in samples if place(sample[1], cells) == c]
        if not inside:
            continue
        weights = [0.0 for _ in bins]
        scenes: list[set[int]] = [set() for _ in bins]
        total = 0.0
        for scene, _, label in inside:
            b = place(label, edges)
            weight = ((edges[b + 1] - edges[b]) / share[b]) ** tau
            weights[b] += weight
            scenes[b].add(scene)
            total += weight * label
        mass = sum(weights)
        support = mass**2 / sum(w**2 / len(s) for w, s in zip(weights, scenes, strict=True) if w)
        x = sum(pred for _, pred, _ in inside) / len(inside)
        mean = (support * total / mass + pseudo_scenes * x) / (support + pseudo_scenes)
        ends = []
        for q in ((1 - math.erf(math.sqrt(0.5))) / 2, (1 + math.erf(math.sqrt(0.5))) / 2):
            below = 0.0
            for b in bins:
                if below + weights[b] >= q * mass:
                    part = (q * mass - below) / weights[b]
                    ends.append(edges[b] + part * (edges[b + 1] - edges[b]))
                    break
                below += weights[b]
        rows.append((x, mean, *ends, mass, mass * (1 + pseudo_scenes / support)))

    places, *curves, masses, heavier = zip(*rows, strict=True)
    pairs = zip(curves, (heavier, masses, masses), strict=True)
    found = (IsotonicRegression().fit_transform(places, y, sample_weight=w) for y, w in pairs)
    curves = zip(places, *found, strict=True)
    return [(p, f, min(a, f), max(b, f)) for p, f, a, b in curves]


def plain_edges(
    preds: np.ndarray, target: np.ndarray, mask: np.ndarray
) -> dict[tuple[int, int], tuple[list[tuple[int, int, int]], int, int]]:
    """Edges of a map (h, w), pixel by pixel.

    For every pixel whose 3 x 3 neighbourhood is valid: per threshold how many of four neighbours
    are farther in both maps, in the prediction and in the truth; whether it lies at a strong edge,
    and whether it flies there.
    """
    found = {}
    thresholds = [1.05 + 0.2 * step / 9 for step in range(10)]
    for y, x in itertools.product(range(1, len(target) - 1), range(1, target.shape[1] - 1)):
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        if not all(mask[place] for place in around):
            continue
        counts = []
        for t in thresholds:
            both = predicted = true = 0
            for place in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                p = max(float(preds[place]), 1e-3) / max(float(preds[y, x]), 1e-3) > t
                q = float(target[place]) / float(target[y, x]) > t
                both, predicted, true = both + (p and q), predicted + p, true + q
            counts.append((both, predicted, true))
        near, far = (extreme(float(target[place]) for place in around) for extreme in (min, max))

        def between(depth: float, near: float = near, far: float = far) -> bool:
            if near == far:
                return False
            return 0.25 < math.log(max(depth, 1e-3) / near) / math.log(far / near) < 0.75

        strong = far / near > 1.25 and not between(float(target[y, x]))
        found[y, x] = counts, int(strong), int(strong and between(float(preds[y, x])))
    return found


def plain_boundary_f1(pixels: list[list[tuple[int, int, int]]]) -> float | None:
    """Mean F1 over thresholds, weighted by them, of the counts of some pixels."""
    above = below = 0.0
    for step in range(10):
        both, predicted, true = (sum(pixel[step][k] for pixel in pixels) for k in range(3))
        if predicted + true:
            t = 1.05 + 0.2 * step / 9
            precision = both / predicted if predicted else 0.0
            recall = both / true if true else 0.0
            score = 2 * precision * recall / (precision + recall) if both else 0.0
            above, below = above + t * score, below + t
    return above / below if below else None


def two_hot(label: float, centers: list[float]) -> list[float]:
    """Return the weights of the centres that a label lies between; beyond the ends, of the end."""
    weights = [0.0] * len(centers)
    if label <= centers[0]:
        weights[0] = 1.0
    elif label >= centers[-1]:
        weights[-1] = 1.0
    else:
        upper = next(k for k, center in enumerate(centers) if center > label)
        part = (label - centers[upper - 1]) / (centers[upper] - centers[upper - 1])
        weights[upper - 1], weights[upper] = 1 - part, part
    return weights


def two_hot_entropy(logits: Tensor, labels: list[float], centers: list[float]) -> Tensor:
    """Mean cross-entropy of logits (n, K) with two-hot labels, one label at a time."""
    terms = []
    for row, label in zip(logits, labels, strict=True):
        target = torch.tensor(two_hot(label, centers), dtype=row.dtype)
        terms.append(-(target * torch.log_softmax(row, 0)).sum())
    return torch.stack(terms).mean()


def read_bins(
    logits: list[float],
    centers: list[float],
    prior: list[float],
    world: list[float],
    tau: float,
    quantile: float,
) -> tuple[float, float]:
    """Return mean and a quantile of one label's bins in p_train^(1 - tau) times world^tau."""
    top = max(logits)
    masses = [
        math.exp(one - top) * (there / share) ** tau if share > 0 else 0.0
        for one, share, there in zip(logits, prior, world, strict=True)
    ]
    shares = [mass / sum(masses) for mass in masses]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(centers)]
    edges = [centers[0], *middles, centers[-1]]
    below, found = 0.0, edges[-1]
    for k, share in enumerate(shares):
        if below + share >= quantile:
            found = edges[k] + (quantile - below) / share * (edges[k + 1] - edges[k])
            break
        below += share
    return sum(s * c for s, c in zip(shares, centers, strict=True)), found


def gradient_matching(
    preds: Tensor, target: Tensor, mask: Tensor, strides: tuple[int, ...], log: bool
) -> Tensor:
    """Mean over strides of the mean jump of the error between pixels (B, H, W), pair by pair."""
    error = preds.log() - target.log() if log else preds - target
    scales = []
    for stride in strides:
        jumps = []
        for b, i, j in itertools.product(*map(range, mask.shape)):
            for other in ((b, i + stride, j), (b, i, j + stride)):
                inside = other[1] < mask.shape[1] and other[2] < mask.shape[2]
                if inside and mask[b, i, j] and mask[other]:
                    jumps.append((error[b, i, j] - error[other]).abs())
        scales.append(torch.stack(jumps).mean() if jumps else torch.zeros((), dtype=error.dtype))
    return torch.stack(scales).mean()


def censored(
    preds: Tensor,
    beyond: Tensor,
    target: Tensor,
    near: tuple[Tensor, Tensor],
    end: float,
    rate: float,
    sigma: float,
) -> Tensor:
    """-log P(y | p) / p_train(y), and beyond an end -log P(y > end | p), (n,), by summing it up.

        P = N(y; p, s^2) p_train(y) / integral of it over all labels

    ``near`` are labels and their masses; beyond the end more of them have the density ``rate``.
    """

    def log_mass(labels: Tensor, masses: Tensor) -> Tensor:
        noise = torch.distributions.Normal(preds[:, None], sigma).log_prob(labels)
        return torch.logsumexp(noise + masses.log(), 1)

    far = end + 300 * torch.linspace(0, 1, 60_001, dtype=torch.float64) ** 2  # denser at the end
    steps = functional.pad(far.diff(), (1, 1))
    tail = log_mass(far, rate * (steps[1:] + steps[:-1]) / 2)  # the trapezoidal rule
    whole = torch.logaddexp(log_mass(*near), tail)
    noise = torch.distributions.Normal(preds, sigma).log_prob(target)
    return whole - torch.where(beyond, tail, noise)


# ---- losses of logarithms ----


def log_label_terms(p, y, sigma, histogram, world, ends, points=400_001):
    """Return loss and read-out of one prediction by sums over labels, in metres throughout.

    k(y) = p_train(y) / p_world(y), of which N(log y; log p, sigma) dy / y is integrated.
    """
    t = np.linspace(histogram.edges[0], histogram.edges[-1], points)
    t = (t[1:] + t[:-1]) / 2
    density = histogram.densities[np.searchsorted(histogram.edges, t) - 1]
    kernel = density * (t if world == "log_uniform" else 1.0) / t
    noise = np.exp(-((np.log(t) - math.log(p)) ** 2) / (2 * sigma**2))
    evidence = (kernel * noise).sum() / kernel.sum()
    loss = (math.log(p) - math.log(y)) ** 2 / (2 * sigma**2) + math.log(evidence)
    mean_log = (kernel * noise * np.log(t)).sum() / (kernel * noise).sum()
    z = np.linspace(*ends, points)
    z = (z[1:] + z[:-1]) / 2
    posterior = np.exp(-((np.log(z) - math.log(p)) ** 2) / (2 * sigma**2)) / z
    below = np.cumsum(posterior) / posterior.sum()
    level = math.erf(math.sqrt(0.5))
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], below, z)
    return {
        "loss": loss,
        "mean": (posterior * z).sum() / posterior.sum(),
        "interval": (low, high),
        "expected": math.exp(mean_log),  # what a plain loss of logarithms learns
    }
