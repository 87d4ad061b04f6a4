"""A published checkpoint as a run folder, which can be evaluated and used for prediction."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from depthbal.data import NYUD2DataModule
from depthbal.errors import ConfigError
from depthbal.evaluation.bins import NYUD2_PIXELS, DepthBins
from depthbal.io import replacing, write_json
from depthbal.losses import LOSSES
from depthbal.models.resnet_mff import ResNetMFF, read_official_checkpoint
from depthbal.predictor import Readout
from depthbal.priors import Histogram
from depthbal.training.depth import DepthTask
from depthbal.training.runs import (
    RunFolder,
    claim_run_folder,
    require_claimable,
    run_record,
    save_prior,
)


def convert_checkpoint(
    file: str | Path,
    out: str | Path,
    *,
    criterion: str,
    criterion_args: Mapping[str, Any],
    readout: Readout,
    root: str | Path,
    overwrite: bool,
) -> RunFolder:
    """Make a run folder of a published checkpoint (.pth.tar), or write nothing at all.

    The files do not say which loss made them, and hold neither its noise scale nor its prior: these
    matter for the read-out "mean" only, and are given, the prior fitted to the published counts.
    """
    require_claimable(Path(out), overwrite)
    bins = DepthBins.nyud2()
    first = int(bins.scored.argmax())
    histogram = Histogram(bins.edges[first:], NYUD2_PIXELS[first:])
    if criterion not in LOSSES:
        raise ConfigError(f"no loss {criterion!r}; known: {', '.join(sorted(LOSSES))}")
    try:
        loss = LOSSES[criterion](**{"label_range": bins.ends, **criterion_args})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{criterion} does not take these arguments: {error}") from error
    if loss.needs_prior:
        loss.set_prior(histogram)
    content = read_official_checkpoint(file)
    model = ResNetMFF()
    model.load_published(file, content)
    task = DepthTask(model, loss, readout=readout)
    data = NYUD2DataModule(Path(root).absolute())
    task.input_spec, task.histogram = data.input_spec(), histogram
    epoch = content.get("epoch")
    entry = task.describe()
    checkpoint = {
        "depthbal": entry,
        "state_dict": task.state_dict(),
        # the index of the last epoch that was trained, as published and as Lightning counts
        "epoch": int(epoch) if isinstance(epoch, int | np.integer) else -1,
    }
    made_with = {key: entry[key] for key in ("model", "criterion", "readout")}
    place = {"root": str(data.root)}
    sections = {
        "seed_everything": 0,
        "model": {"class_path": "depthbal.training.DepthTask", "init_args": made_with},
        "data": {"class_path": "depthbal.data.NYUD2DataModule", "init_args": place},
    }
    run = claim_run_folder(Path(out), overwrite)
    run.config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    save_prior(run, task)
    with replacing(run.checkpoint("last")) as temporary:
        torch.save(checkpoint, temporary)
    # what the file says beside its weights, as far as JSON can hold it
    kept = {key: value for key, value in content.items() if key != "state_dict"}
    published = json.loads(json.dumps(kept, default=_plain))
    facts = {"converted_from": str(Path(file).absolute()), "published": published}
    write_json(run.record, {**run_record(0, "cpu"), **facts})
    return run


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)[:200]
