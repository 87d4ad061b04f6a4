"""The label-density figure: bars are counts by shot, the curve integrates to all images."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from depthbal.adapters.age.command import run
from depthbal.adapters.density import COLOURS, density_figure
from depthbal.errors import ConfigError
from depthbal.evaluation import Label, LabelBins
from depthbal.priors import GaussianMixture, Histogram
from tests.adapters.age.helpers import CONFIGS, tiny_config

COUNTS = [5.0, 300.0, 60.0, 0.0, 120.0]


@pytest.fixture
def axes():
    histogram = Histogram(np.arange(6) + 9.5, COUNTS)
    bins = LabelBins.from_counts(histogram.edges, COUNTS, 100, 20)
    mixture = GaussianMixture([0.7, 0.3], [11.3, 13.5], [0.3, 0.2])
    return density_figure(histogram, Label("age", "years"), bins, mixture).axes[0]


def test_every_age_has_a_bar_of_its_count_in_the_colour_of_its_shot(axes):
    bars = {
        round(bar.get_x() + bar.get_width() / 2): (bar.get_height(), bar.get_facecolor())
        for bar in axes.patches
    }
    assert [bars[age][0] for age in range(10, 15)] == COUNTS
    few, many, medium = (bars[age][1] for age in (10, 11, 12))
    assert len({few, many, medium}) == len(COLOURS)
    assert bars[13][1] == few
    assert bars[14][1] == many


def test_the_curve_integrates_to_the_number_of_training_images(axes):
    (curve,) = axes.lines
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert_allclose(area, sum(COUNTS), rtol=0.01)


def test_axes_name_label_and_unit(axes):
    assert axes.get_xlabel() == "age (years)"


def test_one_command_draws_the_training_labels_and_trains_nothing(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    picture = tmp_path / "density.png"
    run(["--density", str(picture), "--config", str(config)], tmp_path / "none.py", CONFIGS)
    assert cv2.imread(str(picture)).std() > 0
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.yaml", "density.png"}


def test_another_kind_of_file_is_refused_before_the_labels_are_read(tmp_path):
    data = {"class_path": "AgeDataModule", "init_args": {"root": "nowhere", "csv": "no.csv"}}
    config = tiny_config(tmp_path / "tiny.yaml", data=data)
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf, got density\.txt"):
        run(["--density", "density.txt", "--config", str(config)], tmp_path / "none.py", CONFIGS)
