"""Mixtures of data sets: the published shares, subsets, and what a sampler draws from them."""

import pytest
import torch

from depthbal.adapters.hmr.mixing import MixedSampler, mixing_ratios, row_weights
from depthbal.errors import ConfigError

SIZES = {"h36m": 3000, "mpi_inf_3dhp": 900, "lsp": 100, "lspet": 200, "mpii": 300, "coco": 400}


def test_spins_shares_are_published_and_the_pictures_in_the_wild_share_by_size() -> None:
    shares = mixing_ratios(SIZES, "spin")
    expected = {"h36m": 0.3, "mpi_inf_3dhp": 0.1, "lsp": 0.06, "lspet": 0.12, "mpii": 0.18}
    assert shares == pytest.approx(expected | {"coco": 0.24})


def test_the_shares_of_the_published_balanced_mse_add_up_to_one() -> None:
    shares = mixing_ratios(SIZES, "published")
    assert list(shares.values()) == pytest.approx([0.35, 0.15, 0.1, 0.1, 0.1, 0.2])


@pytest.mark.parametrize("recipe", ["spin", "published"])
def test_any_subset_keeps_the_proportions_of_the_whole(recipe: str) -> None:
    part = {name: SIZES[name] for name in ("lsp", "coco", "mpi_inf_3dhp")}
    shares = mixing_ratios(part, recipe)
    assert sum(shares.values()) == pytest.approx(1)
    if recipe == "published":
        assert shares["coco"] / shares["lsp"] == pytest.approx(2)
    else:
        assert shares["mpi_inf_3dhp"] == pytest.approx(0.1 / 0.7)
        assert shares["coco"] / shares["lsp"] == pytest.approx(4)


def test_unknown_data_sets_and_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match="up3d"):
        mixing_ratios({"up3d": 3})
    with pytest.raises(ConfigError, match="expected data sets"):
        mixing_ratios({})
    with pytest.raises(ConfigError, match="vibe"):
        mixing_ratios({"lsp": 3}, "vibe")  # type: ignore[arg-type]


def test_the_sampler_draws_in_the_shares() -> None:
    sizes = {"lsp": 10, "coco": 90}
    weights = row_weights(sizes, {"lsp": 0.4, "coco": 0.6})
    rows = [row for _, row in MixedSampler(weights, samples=20_000)]
    share = sum(row < 10 for row in rows) / len(rows)
    assert share == pytest.approx(0.4, abs=5 * (0.24 / 20_000) ** 0.5)
    assert set(rows) == set(range(100))


def test_epochs_differ_repeat_themselves_and_number_their_draws() -> None:
    sampler = MixedSampler(torch.full((50,), 0.02, dtype=torch.float64), samples=100)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [row for _, row in first] != [row for _, row in second]
    assert [draw for draw, _ in first + second] == list(range(200))


def test_ranks_share_one_draw() -> None:
    weights = torch.full((50,), 0.02, dtype=torch.float64)
    whole = list(MixedSampler(weights, samples=20))
    parts = [MixedSampler(weights, samples=20) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.rank, part.num_replicas = rank, 2
    assert sorted([*parts[0], *parts[1]]) == sorted(whole)
