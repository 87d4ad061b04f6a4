import random

import numpy as np
import torch

from depthbal.training.random_states import collect_random_states, restore_random_states


def draw() -> list[float]:
    legacy = np.random.normal()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), legacy, torch.rand(()).item()]


def test_restored_states_repeat_all_random_numbers(tmp_path):
    draw()  # Python's and NumPy's normal draws keep half of a pair back
    torch.save(collect_random_states(), tmp_path / "states.pt")
    expected = draw()
    assert draw() != expected
    states = torch.load(tmp_path / "states.pt", weights_only=True)
    for _ in range(2):
        restore_random_states(states)
        assert draw() == expected
