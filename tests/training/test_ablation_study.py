"""The tables and the picture of an ablation."""

import json

import pytest
from matplotlib.image import imread

from depthbal.training.ablation_figure import draw_study
from depthbal.training.ablation_study import Measured, Row, Study

GROUPS = ("overall", "many", "medium", "few")


def measured(value, sigma=None, few=None):
    balanced = dict.fromkeys(GROUPS, value) | ({"few": few} if few is not None else {})
    return Measured(balanced, dict.fromkeys(GROUPS, value / 2), sigma)


@pytest.fixture
def study():
    rows = [
        Row("vanilla", "plain", None, {0: measured(9.0), 1: measured(8.0), 2: measured(13.0)}),
        Row(
            "sigma 6", "trained", 6.0, {s: measured(v, 6.0) for s, v in enumerate((5.0, 7.0, 3.0))}
        ),
        Row("sigma 8", "trained", 8.0, {s: measured(4.0, 8.0) for s in range(3)}),
        Row(
            "learned", "learned", None, {s: measured(2.0, v) for s, v in enumerate((7.0, 7.5, 9.0))}
        ),
    ]
    return Study("The noise scale", "sigma in years", "MAE in years", rows)


def test_the_table_has_medians_and_the_range_over_seeds(study):
    lines = study.markdown().splitlines()
    assert "Median over seeds 0, 1, 2" in lines[2]
    row = next(line for line in lines if line.startswith("| vanilla"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["vanilla", *["9.000"] * 4, "[8.000, 13.000]", "-", "4.500"]
    row = next(line for line in lines if line.startswith("| learned"))
    assert row.split("|")[7].strip() == "7.500"
    assert len({line.count("|") for line in lines[4:]}) == 1  # as many cells in every row


def test_an_empty_group_is_shown_as_empty():
    scores = {**dict.fromkeys(GROUPS, 1.0), "few": None}
    study = Study("t", "x", "m", [Row("plain", "plain", None, {0: Measured(scores, scores)})])
    assert "| plain | 1.000 | 1.000 | 1.000 | - |" in study.markdown()
    assert study.to_dict()["rows"][0]["median"]["few"] is None


def test_the_data_hold_every_seed(study):
    content = json.loads(json.dumps(study.to_dict()))
    assert content["rows"][1]["seeds"]["2"]["balanced"]["many"] == 3.0
    assert content["rows"][1]["median"]["overall"] == 5.0
    assert content["rows"][3]["sigma"] == 7.5


def test_the_picture_has_a_line_per_shot(study, tmp_path):
    draw_study(study, tmp_path / "study.png")
    picture = imread(tmp_path / "study.png")
    reds = (picture[..., 0] > 0.6) & (picture[..., 1] < 0.4) & (picture[..., 2] < 0.4)
    blues = (picture[..., 2] > 0.6) & (picture[..., 0] < 0.4)
    assert reds.sum() > 50
    assert blues.sum() > 20
    # without the rows on the axis there is less to see
    draw_study(Study("t", "x", "m", study.rows[:1]), tmp_path / "plain.png")
    plain = imread(tmp_path / "plain.png")
    assert plain.shape == picture.shape
    assert ((plain != picture).any(-1)).sum() > 500


@pytest.mark.parametrize("kind", ["plain", "trained", "learned"])
def test_the_picture_shows_the_spread_over_seeds_of_every_kind(kind, tmp_path):
    pictures = []
    for name, values in (("same", (5.0, 5.0, 5.0)), ("spread", (1.0, 5.0, 9.0))):
        seeds = {seed: measured(value, 6.0) for seed, value in enumerate(values)}
        others = {seed: measured(10.0, 6.0) for seed in range(3)}
        rows = [Row("edge", "trained", 7.0, others), Row(kind, kind, 6.0, seeds)]
        draw_study(Study("t", "x", "m", rows), tmp_path / f"{name}.png")
        pictures.append(imread(tmp_path / f"{name}.png"))
    assert (pictures[0] != pictures[1]).any(-1).sum() > 100
