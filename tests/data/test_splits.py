import numpy as np
import pytest

from depthbal.data.splits import hold_out
from depthbal.errors import ConfigError


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_scene_folders_are_never_cut(seed, fraction):
    sizes = np.random.default_rng(seed).integers(1, 40, 30)
    groups = [f"scene{g}" for g, size in enumerate(sizes) for _ in range(size)]
    split = hold_out(groups, fraction, seed)
    kept, held = ({groups[row] for row in rows} for rows in (split.kept, split.held_out))
    assert not kept & held
    assert sorted(split.kept + split.held_out) == list(range(len(groups)))
    assert 0 < len(split.held_out) <= max(round(fraction * len(groups)), sizes.min())
    assert len(split.held_out) >= fraction * len(groups) - sizes.max()
    assert f"of {len(groups)} samples held out, in {len(held)} of 30 folders" in split.message


def test_few_folders_are_split_by_blocks_spread_over_the_rows():
    split = hold_out(["one"] * 795, 0.05, seed=0)
    blocks = np.split(split.held_out, np.flatnonzero(np.diff(split.held_out) > 1) + 1)
    assert [len(block) for block in blocks] == [8] * 5
    assert split.held_out[0] < 159
    assert split.held_out[-1] >= 795 - 159
    assert "5 contiguous block(s) of rows: 1 folder(s) are fewer than 10" in split.message


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    for names in ([f"s{i // 4}" for i in range(80)], ["one"] * 80):
        assert hold_out(names, 0.2, 3) == hold_out(names, 0.2, 3)
        assert hold_out(names, 0.2, 3).held_out != hold_out(names, 0.2, 4).held_out
    assert hold_out(["a", "b"], 0.0)[:2] == ([0, 1], [])
    assert hold_out(["a", "b"], 1.0)[:2] == ([], [0, 1])
    assert hold_out(["a"], 0.5)[:2] == ([0], [])  # there is nothing to divide


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ConfigError, match="fraction"):
        hold_out(["a", "b"], 1.1)


@pytest.mark.parametrize("groups", [[""] * 2, [""] * 3, [""] * 17, [f"s{i}" for i in range(10)]])
@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.999])
def test_even_tiny_sets_keep_something_on_both_sides(groups, fraction):
    split = hold_out(groups, fraction)
    assert split.kept
    assert split.held_out
    assert sorted(split.kept + split.held_out) == list(range(len(groups)))
