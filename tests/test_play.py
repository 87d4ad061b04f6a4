"""docs/play.html in a real browser: its mathematics is that of depthbal.losses; it is usable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from depthbal.losses import (
    BalanceMap,
    BNILoss,
    MSELoss,
    ReweightedLoss,
    log_evidence,
    truncated_normal_mean,
)
from depthbal.priors import GaussianMixture, Histogram
from tests.reports.browser import Page, require_browser, started_browser, wait_until

FILE = Path(__file__).resolve().parents[1] / "docs" / "play.html"
RANGE = (0.0, 10.0)
EDGES = np.linspace(*RANGE, 51)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
COUNTS = {
    "exponential": np.round(1000 * np.exp(-CENTRES / 1.5)),
    "normal": np.round(1000 * np.exp(-((CENTRES - 5) ** 2) / 2)),  # bins without a label
    "steps": np.where(CENTRES < 3, 1000.0, np.where(CENTRES < 7, 150.0, 0.5)),
}
FUNCTIONS = "const {priorOf, posterior, loss, locate, balanceAfterwards, truncatedMean} = depthbal;"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    require_browser()
    with started_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield Page(driver, FILE)


@pytest.fixture
def page(opened):
    """Return the page as it is when it has just been opened."""
    opened.size(1200)
    opened.run("setUp({}); show()")
    yield opened
    assert opened.complaints() == []


def agrees(found, expected):
    np.testing.assert_allclose(np.array(found, float), np.array(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("tau", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("name", COUNTS)
def test_evidence_loss_and_balancing_afterwards_are_those_of_the_package(page, name, sigma, tau):
    histogram = Histogram(EDGES, COUNTS[name])
    kernel = histogram.relative_to("uniform", tau)
    prior = GaussianMixture.from_histogram(kernel)
    preds = torch.linspace(-4, 14, 61, dtype=torch.float64, requires_grad=True)
    target = torch.linspace(0.1, 9.9, 61, dtype=torch.float64)
    loss = BNILoss(histogram, tau=tau, init_noise_sigma=sigma, reduction="none").double()
    values = loss(preds, target)
    (slope,) = torch.autograd.grad(values.sum(), preds)
    means = target + slope / 2  # of the squared error's unit: m(p) - y = sigma^2 dL/dp
    balance = BalanceMap(kernel, sigma), BalanceMap(kernel, sigma, RANGE)
    # where m is flat a location says nothing, but its read-out does
    inside = means.detach()[(preds > 1) & (preds < 9)] if name != "normal" else means[27:34]
    everywhere = torch.linspace(-2, 12, 57, dtype=torch.float64)
    prepare = f"{FUNCTIONS} const prior = priorOf(arguments[0], arguments[1], arguments[3]);"
    given = EDGES.tolist(), COUNTS[name].tolist(), sigma, tau
    evidence, mean, loss_values, locations, read_out = page.run(
        f"{prepare} const [, , sigma, , preds, target, inside, everywhere] = arguments;"
        "const found = preds.map((p) => posterior(p, prior, sigma));"
        "return [found.map((f) => f.logEvidence), found.map((f) => f.mean),"
        "preds.map((p, i) => loss(p, target[i], prior, sigma)),"
        "inside.map((p) => balanceAfterwards(p, prior, sigma, null)),"
        "everywhere.map((p) => balanceAfterwards(p, prior, sigma, [0, 10]))]",
        *given,
        *(each.tolist() for each in (preds, target, inside, everywhere)),
    )
    agrees(evidence, log_evidence(preds.detach(), prior, sigma))
    agrees(mean, means.detach())
    agrees(loss_values, values.detach())
    agrees(locations, balance[0](inside.detach()))
    agrees(read_out, balance[1](everywhere))


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_the_read_out_is_that_of_the_package(page, sigma):
    preds = torch.linspace(-60, 70, 521, dtype=torch.float64)
    script = "return arguments[0].map((p) => depthbal.truncatedMean(p, arguments[1], [0, 10]))"
    agrees(page.run(script, preds.tolist(), sigma), truncated_normal_mean(preds, sigma, RANGE))


def optimum(loss, inputs, labels):
    """Return the line's coefficients of 1 and (x - 5) / 5 that minimise a loss of the package."""
    features = torch.stack([torch.ones_like(inputs), (inputs - 5) / 5], 1)

    def value(vector):
        coefficients = torch.tensor(vector, requires_grad=True)
        found = loss(features @ coefficients, labels)
        return found.item(), torch.autograd.grad(found, coefficients)[0].numpy()

    found = minimize(value, [5.0, 3.0], jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x


def errors_of(predicted, density, noise):
    """Return RMSE with labels alike and as in training, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    inputs = torch.tensor(CENTRES[:, None] + noise * nodes)
    error = (predicted(inputs).numpy() - CENTRES[:, None]) ** 2 @ (weights / weights.sum())
    return error.mean() ** 0.5, (density @ error) ** 0.5


SETTINGS = [
    {},
    {"preset": "normal", "sigma": 0.6, "tau": 0.5, "noise": 1.5, "count": 1000},
    {"preset": "steps", "skew": 0.7, "sigma": 2, "noise": 0.8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_numbers_shown_are_those_of_the_packages_losses_on_the_samples_shown(page, settings):
    page.run("setUp(arguments[0]); show()", settings)
    shown = page.run("return depthbal.shown")
    given = {"sigma": 1, "tau": 1, "noise": 1, "count": 500, "skew": 1}
    given |= {key: value for key, value in settings.items() if key != "preset"}
    assert {key: shown[key] for key in given} == given
    x, y = (torch.tensor([s[axis] for s in shown["samples"]], dtype=torch.float64) for axis in "xy")
    assert len(x) == given["count"]
    assert (x - y).std().item() == pytest.approx(given["noise"], rel=0.1)
    histogram = Histogram(EDGES).update(y)
    assert histogram.counts.tolist() == shown["counts"]
    density = np.array(shown["density"])
    assert np.abs(histogram.counts / len(y) - density).max() < 5 / len(y) ** 0.5
    sigma, tau = float(given["sigma"]), given["tau"]
    losses = {
        "mse": MSELoss(),
        "reweighted": ReweightedLoss(histogram).double(),
        "balanced": BNILoss(histogram, tau=tau, init_noise_sigma=sigma, label_range=RANGE).double(),
    }
    lines = {name: optimum(loss, x, y) for name, loss in losses.items()}
    afterwards = BalanceMap(histogram.relative_to("uniform", tau), sigma, RANGE)
    predicted = {
        name: lambda x, c=c, loss=losses[name]: loss.readout(c[0] + c[1] * (x - 5) / 5)
        for name, c in lines.items()
    }
    predicted["afterwards"] = lambda x: afterwards(predicted["mse"](x))
    for name, function in predicted.items():
        if name in lines:
            np.testing.assert_allclose(shown["fitted"][name], lines[name], atol=1e-4)
        grid = torch.tensor(shown["grid"], dtype=torch.float64)
        agrees(shown["results"][name]["predictions"], function(grid))
        cells = page.elements(f"#row-{name} td")
        slope, alike, training = (float(cell.get_attribute("data-value")) for cell in cells)
        assert (alike, training) == pytest.approx(
            errors_of(function, density, given["noise"]), abs=2e-3
        )
        near = function(torch.tensor([4.95, 5.05], dtype=torch.float64))
        assert slope == pytest.approx((near[1] - near[0]).item() / 0.1, abs=1e-3)
        assert [cell.text for cell in cells] == [f"{n:.2f}" for n in (slope, alike, training)]


def numbers(page, column):
    """Return a column of the table."""
    return page.run(
        "show(); return Object.fromEntries(METHODS.map(({key}) => [key, Number("
        "document.querySelector(`#row-${key} [data-column=${arguments[0]}]`).dataset.value)]))",
        column,
    )


def test_the_text_is_true(page):
    """Of the paragraph, and of the three experiments, each as its button sets it up."""
    slopes = numbers(page, "slope")
    assert slopes["mse"] < slopes["reweighted"] < slopes["balanced"]
    assert slopes["balanced"] == pytest.approx(1, abs=0.05)
    page.run("setUp({skew: 0})")
    assert max(numbers(page, "alike").values()) < 1.05 * min(numbers(page, "alike").values())

    def set_up(number, **changes):
        page.elements("[data-set]")[number].click()
        page.run(
            "for (const [id, value] of arguments[0]) element(id).value = value", [*changes.items()]
        )

    set_up(0)
    slopes = numbers(page, "slope")
    assert slopes["balanced"] == pytest.approx(slopes["mse"], abs=0.1)
    set_up(0, sigma=1)
    assert numbers(page, "slope")["balanced"] == pytest.approx(1, abs=0.05)
    set_up(0, sigma=1.6)
    assert numbers(page, "slope")["balanced"] > 1.2
    alike, training = [], []
    for tau in (0, 0.5, 1):
        set_up(1, tau=tau)
        alike.append(numbers(page, "alike")["balanced"])
        training.append(numbers(page, "training")["balanced"])
    assert alike == sorted(alike, reverse=True)
    assert training == sorted(training)
    set_up(2)
    alike = numbers(page, "alike")
    assert alike["afterwards"] > 1.2 * alike["balanced"]
    set_up(2, model="curve")
    alike = numbers(page, "alike")
    assert alike["afterwards"] < 1.03 * alike["balanced"]
    page.run("choosePreset('humps')")
    alike = numbers(page, "alike")
    assert alike["afterwards"] > 1.1 * alike["balanced"]


def test_a_distribution_is_drawn_with_the_mouse_and_with_the_keys(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    figure = page.element("#labels")
    before = page.run("return depthbal.shown.density")
    left = -figure.rect["width"] / 2
    mouse = ActionChains(page.driver).move_to_element_with_offset(figure, left + 60, 40)
    mouse.click_and_hold().move_by_offset(figure.rect["width"] - 90, 0).release().perform()
    wait_until(lambda: page.run("return depthbal.shown.density") != before)
    drawn = page.run("return depthbal.shown.density")
    assert max(drawn[5:45]) < 1.01 * min(drawn[5:45])  # a level line
    assert page.element("#preset").get_attribute("value") == "drawn"
    figure.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, *[Keys.ARROW_DOWN] * 30)
    wait_until(lambda: page.run("return depthbal.shown.density")[2] == 0)
    assert page.run("return depthbal.shown.counts")[2] == 0


def test_labels_of_one_bin_are_answered_with_a_sentence(page):
    page.run("heights = heights.map((_, b) => Number(b === 20)); show()")
    assert "nothing can be balanced" in page.element("#notice").text
    assert [cell.text for cell in page.elements("#row-balanced td")] == ["–"] * 3


def test_sliders_have_names_and_units_and_follow_the_keys(page):
    from selenium.webdriver.common.keys import Keys

    for slider in page.elements("input[type=range]"):
        assert slider.accessible_name
        name = slider.get_attribute("id")
        before = page.run("return depthbal.shown[arguments[0]]", name)
        slider.send_keys(Keys.ARROW_LEFT)
        wait_until(
            lambda name=name, b=before: page.run("return depthbal.shown[arguments[0]]", name) < b
        )
        text = slider.get_attribute("aria-valuetext")
        assert text == page.element(f"output[for={name}]").text
        assert text.endswith(" m") == (name in ("sigma", "noise"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(page, theme):
    features = [{"name": "prefers-color-scheme", "value": theme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for width in (1200, 390):
        page.size(width)
        wait_until(lambda w=width: page.run("return element('fits').viewBox.baseVal.width") < w)
        assert page.run("return document.documentElement.scrollWidth") <= width
        paper, ink = page.run(
            "const style = getComputedStyle(document.body);"
            "return [style.backgroundColor, style.color].map((c) => Number(c.match(/\\d+/)[0]))"
        )
        assert (paper > 200 > 100 > ink) == (theme == "light")
        assert (ink > 200 > 100 > paper) == (theme == "dark")


def test_it_is_one_small_file_that_asks_nobody():
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < 1e6
    for word in ("http:", "https:", "//cdn", "src=", "import(", "fetch(", "@import", "url(h"):
        assert word not in text
