"""What the ablations share: their subjects, their options, and where results go."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depthbal.training.ablation import Subject
    from depthbal.training.ablation_study import Study

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / "configs"
CONFIGS_OF = {  # plain and balanced
    "depth": (CONFIGS / "rooms" / "mse.yaml", CONFIGS / "rooms" / "gai.yaml"),
    "age": (CONFIGS / "age" / "drawn" / "vanilla.yaml", CONFIGS / "age" / "drawn" / "rrt_gai.yaml"),
}
METRIC_OF = {"depth": "RMSE in metres", "age": "MAE in years"}
UNIT_OF = {"depth": "metres", "age": "years"}


def parse(
    arguments: Sequence[str],
    description: str | None,
    name: str,
    add_options: Callable[[argparse.ArgumentParser], object],
) -> tuple[argparse.Namespace, list[str]]:
    """Return the options that every ablation has, its own, and what goes to the trainings.

    Args:
        arguments: The command line.
        description: What the tool does.
        name: Of its files and of the default folder.
        add_options: Adds the tool's own options.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--of", choices=list(CONFIGS_OF), default="depth", help="what is trained")
    parser.add_argument("--plain", type=Path, help="config of the plain loss")
    parser.add_argument("--balanced", type=Path, help="config of GAI; for ages a re-training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help=f"default: runs/{name}-DEPTH_OR_AGE")
    add_options(parser)
    known, rest = parser.parse_known_args(arguments)
    known.out = known.out or Path("runs") / f"{name}-{known.of}"
    return known, rest


def subject_of(known: argparse.Namespace) -> "Subject":
    """Return what the options say to train."""
    from depthbal.training.ablation import Subject

    plain, balanced = CONFIGS_OF[known.of]
    plain, balanced = known.plain or plain, known.balanced or balanced
    if known.of == "depth":
        from depthbal.training.compare_posthoc import posthoc_metrics
        from depthbal.training.depth import DEPTH

        return Subject(DEPTH, TOOLS / "train.py", plain, balanced, posthoc=posthoc_metrics)
    from depthbal.adapters.age.application import AGE
    from depthbal.adapters.age.retraining import inherit

    return Subject(AGE, TOOLS / "train_age.py", plain, balanced, on_base=inherit)


def write(study: "Study", known: argparse.Namespace, name: str) -> None:
    """Write table, data and picture of a study, and print the table."""
    from rich.console import Console
    from rich.markdown import Markdown

    from depthbal.files import replacing
    from depthbal.priors.files import write_json
    from depthbal.training.ablation_figure import draw_study
    from depthbal.training.versions import collect_versions

    versions = collect_versions(known.seeds[0], "cpu")
    made_with = ", ".join(f"{part} {versions[part]}" for part in ("depthbal", "torch", "python"))
    page = f"{study.markdown()}\n{made_with}, {versions['platform']}: `{versions['command']}`\n"
    with replacing(known.out / f"{name}.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    write_json(known.out / f"{name}.json", {**study.to_dict(), "versions": versions})
    draw_study(study, known.out / f"{name}.png")
    console = Console()
    console.print(Markdown(page))
    console.print(f"Written: {known.out / name}.md, .json, .png", highlight=False, soft_wrap=True)
