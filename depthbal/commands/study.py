"""``depthbal study``: configs x seeds x varied settings, their medians and one report."""

import itertools
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthbal.commands import import_classes, make_parser
from depthbal.errors import ConfigError, DepthbalError, first_line
from depthbal.io import replacing, write_json

Settings = tuple[dict[str, Any], list[str]]
"""A config's content and what the command line lays over it."""


def main(arguments: Sequence[str]) -> None:
    """Run a study."""
    study = Study(_options(arguments))
    study.train()
    study.write()


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return a study's keys: those of its file, the command line's over them."""
    parser = make_parser(
        "study",
        "Trains every config with every seed and every varied value, and compares them: "
        "DIR/NAME-SEED are the runs, DIR/table.md and table.json their medians, DIR/report.html "
        "the page with all of them. Finished runs are read and not repeated, one that was cut off "
        "goes on; one that fails is reported at the end, and the others are done.",
        "--configs rooms/mse rooms/gai --seeds 0 1 2 --posthoc auto --out runs/study",
    )
    add = parser.add_argument
    configs = Path(__file__).parents[1] / "configs"
    studies = (path.relative_to(configs).with_suffix("") for path in configs.rglob("study*.yaml"))
    shipped = ", ".join(sorted(study.as_posix() for study in studies))
    base = "one that starts from another's run names it as @NAME: that config's, of the same seed"
    add("study", nargs="?", help=f"file with the keys below, or a shipped one: {shipped}")
    add("--configs", nargs="+", metavar="NAME", help=f"shipped configs or files; {base}")
    add("--seeds", nargs="+", type=int, metavar="N", help="of network and samples; default 0")
    vary = "setting and values, model.criterion.init_noise_sigma 0.5 1; may be given several times"
    add("--vary", nargs="+", action="append", metavar=("KEY", "VALUE"), help=vary)
    add("--fixed", nargs="+", metavar="NAME", help="configs that are not varied")
    common = "of every training, such as data.root=DIR trainer.max_epochs=3"
    add("--settings", nargs="+", metavar="KEY=VALUE", help=common)
    add("--metrics", nargs="+", metavar="PATH", help="columns, as in metrics.json: few.rmse")
    add("--posthoc", nargs="+", metavar="SIGMA", help="or auto: plain losses, balanced afterwards")
    add("--tau", nargs="+", type=float, metavar="T", help="read-outs of every run of BinsLoss")
    add("--threads", type=int, metavar="N", help="of the CPU; small networks are fastest with 1")
    add("--out", metavar="DIR", help="where everything goes")
    given = vars(parser.parse_args(arguments or ["--help"]))
    options: dict[str, Any] = {}
    if file := given.pop("study"):
        from depthbal.training.settings import read_config

        options = read_config(file)
    if unknown := sorted(set(options) - set(given)):
        raise ConfigError(f"{file}: unknown keys {', '.join(unknown)}; known: {', '.join(given)}")
    if given["vary"]:
        given["vary"] = {key: values for key, *values in given["vary"]}
    if isinstance(settings := options.get("settings") or [], Mapping):
        settings = [f"{key}={value}" for key, value in settings.items()]
    # those of the command line win
    given["settings"] = [*_list(settings), *_list(given["settings"])]
    options |= {key: value for key, value in given.items() if value is not None}
    for needed in ("configs", "out"):
        if needed not in options:
            raise ConfigError(f"a study needs --{needed}; depthbal study --help")
    return options


class Study:
    """The runs of a study, given the keys of its file; all are parsed before the first training."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from depthbal.training.settings import make_parser

        import_classes()
        self.out = Path(options["out"])
        self.posthoc = [str(sigma) for sigma in _list(options.get("posthoc"))]
        self.taus = [float(tau) for tau in _list(options.get("tau"))]
        self.metrics: list[str] = _list(options.get("metrics"))
        self.threads: int | None = options.get("threads")
        self.common = [f"--{setting}" for setting in options["settings"]]
        self.parser = make_parser("depthbal study")
        self.work: dict[str, dict[Path, Settings]] = {}  # method -> run folder -> its settings
        self.loss: dict[str, Any] = {}  # class of every method's loss
        self.rows: dict[str, list[Path]] = {}  # what the table has: the results of those that ran
        self.failed: dict[str, str] = {}
        self.unbalanced: dict[str, str] = {}
        configs = options["configs"]
        if not isinstance(configs, Mapping):
            configs = {_name(config, configs): config for config in configs}
        for name, config in configs.items():
            varied = {} if name in _list(options.get("fixed")) else options.get("vary") or {}
            for values in itertools.product(*varied.values()):
                chosen = dict(zip(varied, values, strict=True))
                parts = [f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items()]
                method = "-".join([name, *parts])
                lines = [f"--{key}={value}" for key, value in chosen.items()]
                self.work[method] = {}
                for seed in options.get("seeds") or [0]:
                    self._add(method, str(config), seed, lines)

    def _add(self, method: str, config: str, seed: int, varied: Sequence[str]) -> None:
        """Note a run, if its settings are good and a run that is there has none but these."""
        from pydoc import locate

        from depthbal.training.runs import RunFolder
        from depthbal.training.settings import differences, parse, read_config, task_class

        content = _with_bases(read_config(config), self.out, seed)
        overrides = [f"--seed_everything={seed}", f"--data.seed={seed}", *self.common, *varied]
        settings = parse(self.parser, overrides, content)
        run = RunFolder(self.out / f"{method}-{seed}")
        if run.is_run() and (other := differences(self.parser, run.config, settings)):
            raise ConfigError(
                f"{run.path} was trained with other settings: {'; '.join(other[:3])}; give "
                "another --out, or remove it"
            )
        self.metrics = self.metrics or list(task_class(settings).study_metrics)
        self.loss[method] = locate(settings.model.init_args.criterion.class_path)
        self.work[method][run.path] = content, overrides

    # ---- trainings ----

    def train(self) -> None:
        """Train what is missing; a run that fails is noted and the others go on."""
        import torch

        from depthbal.training.runs import RunFolder
        from depthbal.training.train import train

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        runs = [(name, *run) for name, runs in self.work.items() for run in runs.items()]
        for method, folder, (config, overrides) in runs:
            run = RunFolder(folder)
            try:
                if not run.is_run():
                    train(overrides, out=str(folder), config=config)
                elif "duration_s" not in run.read_record() or not run.metrics.is_file():
                    train([], resume=str(folder))
                else:
                    print(f"{folder} is finished")
                self.rows.setdefault(method, []).append(folder)
                self._evaluate(method, run)
            except KeyboardInterrupt:
                raise
            except Exception as error:  # whatever it is, the other runs are not its fault
                self.failed[str(folder)] = first_line(error)
                print(f"{folder} failed: {type(error).__name__}: {error}", file=sys.stderr)

    def _evaluate(self, method: str, run: Any) -> None:
        """Evaluate a plain loss's run balanced afterwards, one of BinsLoss at every tau; once."""
        from depthbal.training.evaluate import balance_names, evaluate_run, posthoc_sigma
        from depthbal.training.runs import open_run

        def add(row: str, *names: str, **way: Any) -> None:
            result = run.evaluation(*names)
            if not (result / "metrics.json").is_file():
                evaluate_run(run.path, **way)
            self.rows.setdefault(row, []).append(result)

        plain = getattr(self.loss[method], "balances", False) is not True
        for given in self.posthoc if plain else ():
            row = f"{method} balanced afterwards, sigma {given}"
            self.rows.setdefault(row, [])  # also where it cannot be done
            wanted: Any = "auto" if given == "auto" else float(given)
            try:
                sigma, _ = posthoc_sigma(open_run(run.path), "last", wanted)
                add(row, f"posthoc_{sigma:.12g}", posthoc=wanted)
            except ConfigError as error:
                self.unbalanced[f"{run.path}, sigma {given}"] = first_line(error)
        for tau in self.taus if hasattr(self.loss[method], "set_world") else ():
            add(f"{method}, tau {tau:g}", *balance_names(None, None, tau, None), tau=tau)

    # ---- results ----

    def table(self) -> dict[str, Any]:
        """Return what table.json holds: per method its runs, and median and values per metric."""
        table: dict[str, Any] = {}
        for method, folders in self.rows.items():
            results = [json.loads((f / "metrics.json").read_text()) for f in folders]
            table[method] = {"runs": [str(folder) for folder in folders]}
            for path in self.metrics:
                values = [value for one in results if (value := _at(one, path)) is not None]
                if values:
                    median = statistics.median(values)
                    table[method][path] = {"median": median, "values": values}
        return table

    def write(self) -> None:
        """Write table.json, table.md and report.html, print the table, raise what failed."""
        from rich.console import Console
        from rich.markdown import Markdown

        from depthbal.commands.tables import try_report

        table = self.table()
        lacking = [f"- not balanced afterwards: {k}: {why}" for k, why in self.unbalanced.items()]
        text = "\n".join([_markdown(table, self.metrics), "", *lacking]).rstrip() + "\n"
        write_json(self.out / "table.json", table)
        with replacing(self.out / "table.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        Console().print(Markdown(text))
        print(f"Written: {self.out / 'table.md'}")
        if results := [folder for folders in self.rows.values() for folder in folders]:
            try_report(results, self.out / "report.html")
        if lacking:
            print("\n".join(lacking), file=sys.stderr)
        if self.failed:
            lines = [f"{run}: {why}" for run, why in self.failed.items()]
            raise DepthbalError(f"{len(lines)} of the runs failed\n  " + "\n  ".join(lines))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _name(config: str, configs: Sequence[str]) -> str:
    """Return a config's name: its file's, or the whole path where others share that."""
    stem = Path(config).stem
    alone = sum(Path(other).stem == stem for other in configs) == 1
    return stem if alone else "-".join(Path(config).with_suffix("").parts)


def _with_bases(content: Any, out: Path, seed: int) -> Any:
    """Return a config's content with every "@NAME" as the folder of that config's run."""
    if isinstance(content, dict):
        return {key: _with_bases(value, out, seed) for key, value in content.items()}
    if isinstance(content, str) and content.startswith("@"):
        return str(out / f"{content[1:]}-{seed}")
    return content


def _at(result: Any, path: str) -> float | None:
    """Return a number of metrics.json by its dotted path; None where there is none."""
    for key in path.split("."):
        result = result.get(key) if isinstance(result, dict) else None
    return result if isinstance(result, int | float) else None


def _markdown(table: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return the table as markdown: median, and the range where there are several seeds.

    What all paths begin and end with stands above it: narrow columns fit a terminal.
    """
    from depthbal.reports.writing import table_text

    paths = [path for path in metrics if any(path in row for row in table.values())]
    parts = [path.split(".") for path in paths]
    ways = parts if len(parts) > 1 else [[]]  # a single column keeps its path
    start = list(os.path.commonprefix(ways))  # noqa: RUF071  # of the keys
    end = list(os.path.commonprefix([way[::-1] for way in ways]))[::-1]  # noqa: RUF071
    names = [" ".join(part[len(start) : len(part) - len(end)]) for part in parts]
    shared = f"`{'.'.join([*start, '*', *end])}`, median (range over seeds)\n\n"
    rows = [["method", "runs", *names]]
    for method, row in table.items():
        cells = []
        for path in paths:
            values = row.get(path, {}).get("values", [])
            spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
            cells.append(f"{row[path]['median']:.4g}{spread}" if values else "-")
        rows.append([method, f"{len(row['runs'])}", *cells])
    return (shared if start or end else "") + table_text(rows)
