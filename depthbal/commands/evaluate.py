"""``depthbal evaluate``: a run scored again."""

from collections.abc import Sequence
from pathlib import Path

from depthbal.commands import add_posthoc, make_parser


def main(arguments: Sequence[str]) -> None:
    """Evaluate a run, write the result into its folder and print it."""
    parser = make_parser(
        "evaluate",
        "Score a run on its test split, per bin and shot. Writes metrics.json, scores.npz and "
        "report.html into RUN/eval/NAME, NAME being best, eigen, posthoc_SIGMA and the like; the "
        "last epoch by the run's own protocol goes into RUN itself. Settings of the data can be "
        "replaced: --data.root /elsewhere",
        "runs/mse --posthoc auto",
    )
    add = parser.add_argument
    add("run", type=Path, help="run folder")
    add("--checkpoint", choices=("last", "best"), default="last")
    add(
        "--protocol",
        help="for depth nyud2_dir (default: balanced mask, pooled over pixels) or eigen (Eigen's "
        "crop, mean over images)",
    )
    add("--device", help="default: the first GPU, else cpu")
    add("--seed", type=int, default=0, help="of the balanced mask")
    add_posthoc(parser)
    add("--force", action="store_true", help="score images that --balance was calibrated on")
    known, overrides = parser.parse_known_args(arguments)

    # short names of classes are those of imported ones
    import depthbal.data as data
    from depthbal.commands.tables import print_metrics, try_report
    from depthbal.training.evaluate import evaluate_run
    from depthbal.training.optimisation import default_device

    _ = data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule
    result, folder = evaluate_run(
        known.run,
        known.checkpoint,
        known.protocol,
        overrides=overrides,
        device=known.device or default_device(),
        seed=known.seed,
        posthoc=known.posthoc,
        balance=known.balance,
        force=known.force,
    )
    print_metrics(result)
    print(f"Written: {folder / 'metrics.json'}")
    try_report([folder], folder / "report.html")
