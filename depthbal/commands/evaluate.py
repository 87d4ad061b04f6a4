"""``depthbal evaluate``: a run, or anybody's predictions, scored per bin and shot."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthbal.commands import add_posthoc, make_parser
from depthbal.errors import ConfigError

FOREIGN = ("data", "out", "overwrite", "kind", "scale", "pattern", "allow_missing", "align")
"""Options that need --predictions."""


def main(arguments: Sequence[str]) -> None:
    """Evaluate a run or predictions, write the result and print it."""
    parser = make_parser(
        "evaluate",
        "Score a run, or anybody's predictions, on a test split, per bin and shot. Writes "
        "metrics.json, scores.npz and report.html: of a run into RUN/eval/NAME, NAME being best, "
        "eigen, posthoc_SIGMA and the like (the last epoch by the run's own protocol into RUN "
        "itself), of predictions into --out. Settings of a run's data can be replaced: "
        "--data.root /elsewhere",
        "runs/mse --posthoc auto; --predictions zoe/ --data FolderDataModule --data.root nyu --out "
        "results/zoe",
    )
    add = parser.add_argument
    add("run", type=Path, nargs="?", help="run folder")
    add("--checkpoint", choices=("last", "best"), default="last")
    add(
        "--protocol",
        help="for depth nyud2_dir (default: balanced mask, pooled over pixels) or eigen (Eigen's "
        "crop, mean over images)",
    )
    add("--device", help="default: the first GPU, else cpu")
    add("--seed", type=int, default=0, help="of the balanced mask")
    add_posthoc(parser)
    add = parser.add_argument_group("predictions of any program").add_argument
    add("--predictions", type=Path, metavar="DIR", help="npy, npz, png, tiff or pfm files, named "
        "like the test images")  # fmt: skip
    add("--data", help="data module, or a run folder whose data it is")
    add("--out", type=Path, help="folder of the result")
    add("--overwrite", action="store_true", help="replace an earlier result")
    add("--predictions.kind", dest="kind", choices=("depth", "inverse"))
    add("--predictions.scale", dest="scale", type=float, help="metres per unit of the files")
    add("--predictions.pattern", dest="pattern", help="of the files' names: '{stem}_pred'")
    add("--allow-missing", action="store_true", help="score the images that have a prediction")
    add(
        "--align",
        nargs="+",
        choices=("none", "median", "depth", "inverse"),
        help="to the truth of each image, side by side; the first is the main one (default: none)",
    )
    known, overrides = parser.parse_known_args(arguments)
    if (known.run is None) == (known.predictions is None):
        raise ConfigError("give a run folder, or --predictions DIR with --data and --out")
    given = [name for name in FOREIGN if getattr(known, name) not in (None, False)]
    if known.predictions is None and given:
        raise ConfigError(f"--{given[0].replace('_', '-')} goes with --predictions, not with a run")

    # short names of classes are those of imported ones
    import depthbal.data as data
    from depthbal.commands.tables import print_metrics, try_report

    _ = data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule
    folder, result = (_evaluate_run if known.run else _evaluate_predictions)(known, overrides)
    print_metrics(result)
    print(f"Written: {folder / 'metrics.json'}")
    try_report([folder], folder / "report.html")


def _evaluate_run(known: argparse.Namespace, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.optimisation import default_device

    result, folder = evaluate_run(
        known.run,
        known.checkpoint,
        known.protocol,
        overrides=overrides,
        device=known.device or default_device(),
        seed=known.seed,
        posthoc=known.posthoc,
    )
    return folder, result


def _evaluate_predictions(
    known: argparse.Namespace, overrides: list[str]
) -> tuple[Path, dict[str, Any]]:
    from depthbal.data import DepthDataModule, PredictionFolder
    from depthbal.foreign import evaluate, image_names
    from depthbal.io import write_json
    from depthbal.training.runs import data_of, require_claimable, run_record

    if known.data is None or known.out is None:
        raise ConfigError("--predictions needs --data (a data module or a run folder) and --out")
    if not (known.overwrite and (known.out / "scores.npz").exists()):
        require_claimable(known.out)
    data = data_of(known.data, overrides)
    if not isinstance(data, DepthDataModule):
        raise ConfigError(
            f"{known.data} has labels of {data.label.name}; --predictions scores depth"
        )
    names = image_names(data)
    files = PredictionFolder(
        known.predictions, names, known.scale, known.pattern, known.allow_missing
    )
    if files.missing:
        print(f"{len(files.missing)} of {len(names)} images have no prediction and are left out")
    result = evaluate(
        files,
        data,
        known.out,
        protocol=known.protocol or "nyud2_dir",
        kind=known.kind or "depth",
        alignments=known.align or ("none",),
        seed=known.seed,
        facts={"source": str(known.predictions.absolute())},
        progress=True,
    )
    write_json(known.out / "run.json", run_record(known.seed, "cpu"))
    return known.out, result
