"""docs/notebooks: they run, what their prose says is true, and git holds no outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NAMES = ["01_one_dimension", "02_your_trainer", "03_depth"]
# What the prose says of the results, in the notebook's own names, asserted in a last cell.
CLAIMS = {
    "01_one_dimension": """
        found = {name: slope(predict) for name, predict in fits.items()}
        assert abs(found["MSE"] - SPREAD**2 / (SPREAD**2 + NOISE**2)) < 0.05
        assert found["MSE"] < found["reweighting"] < 0.8
        assert all(abs(found[name] - 1) < 0.1 for name in ("GAI", "BMC"))
        assert (brute - log_e).abs().max() < 1e-12
        assert slopes == sorted(slopes) and slopes[0] < found["MSE"] + 0.1 and slopes[-1] > 1.5
        assert abs(learned.noise_sigma - NOISE) < 0.15
        assert abs(after_slope - 1) < 0.1
        assert rmse(read_out, even) < rmse(raw, even) < rmse(fits["MSE"](seen), even)
        assert rmse(fits["MSE"](x), y) < rmse(fits["GAI"](x), y)
    """,
    "02_your_trainer": """
        plain_preds, after, gai = (preds for preds, _ in results.values())
        for preds in (after, gai):
            assert rmse(preds, test_angles) < 0.95 * rmse(plain_preds, test_angles)
            for some, most in ((rare, 0.85), (~rare, 1.2)):
                before = rmse(plain_preds[some], test_angles[some])
                assert rmse(preds[some], test_angles[some]) < most * before
        assert val_rmse < min(rmse(preds, val_angles) for preds in on_val[1:])
        assert sigma > val_rmse
    """,
    "03_depth": """
        assert (run / "report.html").is_file()
        ratio = {group: after[group]["rmse"] / before[group]["rmse"] for group in ("many", "few")}
        assert ratio["few"] < 0.97 and 1 < ratio["many"] < 1.4
        groups = [before["all_pixels"][group]["rmse"] for group in ("overall", "many", "few")]
        assert groups[1] < groups[0] < (groups[1] + groups[2]) / 2
        assert before["few"]["bias"] < 0
    """,
}


def notebook(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_these_are_the_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_what_it_says_is_true(name, tmp_path):
    shown = notebook(name)
    claims = re.sub("^        ", "", CLAIMS[name], flags=re.MULTILINE)
    shown.cells.append(nbformat.v4.new_code_cell(claims))
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(shown, timeout=280, resources=place).execute()
    figures = [
        output
        for cell in shown.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(figures) >= 3
    assert list(tmp_path.iterdir()) == []  # it leaves nothing where it is run


@pytest.mark.parametrize("name", NAMES)
def test_git_holds_no_outputs_and_every_cell_has_a_name(name):
    stored = notebook(name)
    nbformat.validate(stored)
    for cell in stored.cells:
        assert re.fullmatch(r"[a-z][a-z-]+", cell.id)  # not drawn anew whenever it is saved
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_computed_and_links_lead_somewhere(name):
    prose = "\n".join(cell.source for cell in notebook(name).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        assert link.startswith("https://") or (FOLDER / link).exists(), link
    text = re.sub(r"\]\([^)]+\)", "", prose)
    assert not re.findall(r"\d[.,]\d|\d ?%", text)  # results are what a cell prints
