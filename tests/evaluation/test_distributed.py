"""Two processes give every number of one, and the images in one order."""

import json

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.evaluation.helpers import (
    BINS,
    age_scores,
    ages,
    assert_same,
    batch,
    raw_scores,
    share_of,
)


def results(rank, world):
    """What depth, ages and measured errors say, scored by one of some processes."""
    preds, target, mask = batch(images=5)
    mine = [(i, i if i < 5 else 0) for i in range(rank, 6 if world > 1 else 5, world)]
    order, some = torch.tensor([i if i < 5 else -1 for i, _ in mine]), [i for _, i in mine]
    names = [f"image {i}" for i in some]
    depth = raw_scores(BINS, subsets=("mask",))
    depth.update(
        {"raw": preds[some]},
        target[some],
        mask[some],
        names,
        names,
        (preds[some] - 0.5, preds[some] + 0.4),
        {"mask": share_of(mask)[some]},
        order,
    )
    years = age_scores()
    guessed, truth = (values[some] for values in ages(samples=5))
    years.update({"raw": guessed}, truth, None, names, indices=order)
    measured = raw_scores(BINS, terms=("count", "gap"), main_metric="gap", columns=("truth",))
    errors = {"gap": (guessed - truth).abs()}
    measured.update_errors(errors, truth / 10, names, None, {"truth": truth}, order)
    found = {}
    for name, scores in (("depth", depth), ("ages", years), ("measured", measured)):
        found[name] = scores.compute()
        found[f"{name} names"] = scores.names
    found["joint"], found["coverage"] = depth.joint().tolist(), depth.coverage().tolist()
    found["column"] = measured.column("truth").tolist()
    return found


def score_own_share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = results(rank, 2)
        with open(f"{folder}/rank{rank}.json", "w") as file:
            json.dump(found, file)
    finally:
        dist.destroy_process_group()


def test_two_processes_give_every_number_of_one(tmp_path):
    mp.start_processes(score_own_share, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = results(0, 1)
    assert expected["depth names"] == [f"image {i}" for i in range(5)]
    assert expected["depth"]["overall"]["count"] > 100
    for rank in range(2):
        assert_same(json.loads((tmp_path / f"rank{rank}.json").read_text()), expected)
