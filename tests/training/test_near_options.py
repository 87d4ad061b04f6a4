"""What a misspelt setting was meant to be."""

import pytest

from tests.training.helpers import exit_code, tiny_config

NYUD2 = ["--data", "NYUD2DataModule", "--data.root", "."]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--trainer.max_epoch", "3"], "--trainer.max_epochs"),
        (["--trainer.acelerator=cpu"], "--trainer.accelerator"),
        (["--model.noise_l", "3"], "--model.noise_lr"),
        (["--modell.noise_lr", "3"], "--model.noise_lr"),
        (["--max_epochs", "3"], "--trainer.max_epochs"),
        (["--seed", "3"], "--seed_everything"),
        (["--ouut", "x"], "--out"),
        (["--data.n_trian", "3"], "n_train"),
        ([*NYUD2, "--data.bin_widht", "1"], "bin_width"),  # an argument of its base class
        (["--model.criterion.init_noise_sigmaa", "2"], "init_noise_sigma"),
        (["--model.optimizer.lrr", "2"], "lr"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(tmp_path, capsys, arguments, meant):
    assert exit_code(tiny_config(tmp_path / "tiny.yaml"), *arguments) == 2
    question = capsys.readouterr().err.partition("did you mean ")[2].partition("?")[0]
    assert meant in question.split(" or ")


def test_a_misspelt_key_of_a_config_file_is_answered_too(tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.yaml", trainer={"max_epochz": 3})
    assert exit_code(config) == 2
    assert "did you mean max_epochs" in capsys.readouterr().err


def test_what_resembles_nothing_is_not_guessed(tmp_path, capsys):
    assert exit_code(tiny_config(tmp_path / "tiny.yaml"), "--trainer.colour", "blue") == 2
    assert "did you mean" not in capsys.readouterr().err
