"""``depthbal study``: configs x seeds x varied settings, their medians and one report."""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthbal.errors import ConfigError, DepthbalError
from depthbal.io import replacing, write_json

Settings = tuple[dict[str, Any], list[str]]
"""A config's content and what the command line lays over it."""

KEYS = ("configs", "seeds", "vary", "fixed", "settings", "metrics", "posthoc", "threads", "out")

HELP = """\
usage: depthbal study STUDY.yaml [--out DIR]
       depthbal study --configs A B [--seeds 0 1 2] [--vary KEY VALUE ...] --out DIR

Trains every config with every seed and every varied value, and compares them: DIR/NAME-SEED are
the runs, DIR/table.md and table.json their medians, DIR/report.html the page with all of them.
Finished runs are read and not repeated, one that was cut off goes on; one that fails is reported
at the end, and the others are done.

  STUDY.yaml              a file with the keys below, or a shipped one: rooms/study,
                          age/drawn/study, hmr/synthetic/study
  --configs NAME ...      shipped configs or files. A config that starts from another's run names it
                          as @NAME, the run of that config with the same seed
  --seeds N ...           of network and samples; default 0
  --vary KEY VALUE ...    a setting and its values, such as model.criterion.init_noise_sigma 0.5 1;
                          may be given several times
  --fixed NAME ...        configs that are not varied
  --settings KEY=VALUE ...  of every training, such as data.root=DIR trainer.max_epochs=3
  --metrics PATH ...      columns of the table, as in metrics.json, such as few.rmse
  --posthoc SIGMA|auto ...  plain losses also balanced afterwards, as rows of their own
  --threads N             of the CPU; small networks are fastest with 1
  --out DIR               where everything goes
"""


def main(arguments: Sequence[str]) -> None:
    """Run a study."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    study = Study(_options(arguments))
    study.train()
    study.write()


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return a study's keys: those of its file, the command line's over them."""
    from depthbal.training.settings import read_config

    parser = argparse.ArgumentParser(prog="depthbal study", add_help=False, allow_abbrev=False)
    parser.add_argument("study", nargs="?")
    for key in ("configs", "fixed", "settings", "metrics", "posthoc"):
        parser.add_argument(f"--{key}", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--vary", nargs="+", action="append")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out")
    given = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    file = given.pop("study", None)
    options = {} if file is None else read_config(file)
    if unknown := sorted(set(options) - set(KEYS)):
        raise ConfigError(f"{file}: unknown keys {', '.join(unknown)}; known: {', '.join(KEYS)}")
    if "vary" in given:
        given["vary"] = {key: values for key, *values in given["vary"]}
    if isinstance(options.get("settings"), Mapping):
        options["settings"] = [f"{key}={value}" for key, value in options["settings"].items()]
    if "settings" in given:  # beside those of the file, over which they win
        given["settings"] = [*_list(options.get("settings")), *given["settings"]]
    options |= given
    for needed in ("configs", "out"):
        if needed not in options:
            raise ConfigError(f"a study needs --{needed}; depthbal study --help")
    return options


class Study:
    """The runs of a study; all settings are parsed before the first training.

    Args:
        options: The keys of a study's file.

    Raises:
        ConfigError: A setting is unknown or refused, or a run that is there has others.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        import depthbal.data as data
        from depthbal.training.settings import make_parser

        _ = data.FolderDataModule, data.NYUD2DataModule, data.RoomsDataModule
        self.out = Path(options["out"])
        self.seeds: list[int] = list(options.get("seeds") or [0])
        self.posthoc = [str(sigma) for sigma in _list(options.get("posthoc"))]
        self.metrics: list[str] = _list(options.get("metrics"))
        self.threads: int | None = options.get("threads")
        self.common = [f"--{setting}" for setting in _list(options.get("settings"))]
        self.failed: dict[str, BaseException] = {}
        self.parser = make_parser("depthbal study")
        configs = options["configs"]
        if not isinstance(configs, Mapping):
            configs = {_name(config, configs): config for config in configs}
        self.work: dict[str, dict[str, Settings]] = {}  # method -> run folder -> its settings
        for name, config in configs.items():
            varied = {} if name in _list(options.get("fixed")) else options.get("vary") or {}
            for values in itertools.product(*varied.values()):
                chosen = dict(zip(varied, values, strict=True))
                parts = [f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items()]
                method = "-".join([name, *parts])
                lines = [f"--{key}={value}" for key, value in chosen.items()]
                self.work[method] = {
                    str(self.out / f"{method}-{seed}"): self._settings(str(config), seed, lines)
                    for seed in self.seeds
                }
        self._require_same()

    def _settings(self, config: str, seed: int, varied: Sequence[str]) -> Settings:
        """Return config and overrides of one training, its base run by its folder."""
        from depthbal.training.settings import read_config

        seeds = [f"--seed_everything={seed}", f"--data.seed={seed}"]
        content = _with_bases(read_config(config), self.out, seed)
        return content, [*seeds, *self.common, *varied]

    def _require_same(self) -> None:
        """Parse everything; refuse a run that is there with other settings."""
        from depthbal.training.runs import RunFolder
        from depthbal.training.settings import differences, parse

        for folder, (config, overrides) in self._runs():
            wanted = parse(self.parser, overrides, config)
            run = RunFolder(folder)
            if run.is_run() and (other := differences(self.parser, run.config, wanted)):
                raise ConfigError(
                    f"{folder} was trained with other settings: {'; '.join(other[:3])}; give "
                    "another --out, or remove it"
                )

    def _runs(self) -> list[tuple[str, Settings]]:
        return [pair for runs in self.work.values() for pair in runs.items()]

    # ---- trainings ----

    def train(self) -> None:
        """Train what is missing; a run that fails is noted and the others go on."""
        import torch

        from depthbal.training.runs import RunFolder
        from depthbal.training.train import train

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        for folder, (config, overrides) in self._runs():
            run = RunFolder(folder)
            try:
                if not run.is_run():
                    train(overrides, out=folder, config=config)
                elif "duration_s" not in run.read_record() or not run.metrics.is_file():
                    train([], resume=folder)
                else:
                    print(f"{folder} is finished")
                self._balance(folder)
            except KeyboardInterrupt:
                raise
            except Exception as error:  # whatever it is, the other runs are not its fault
                self.failed[folder] = error
                print(f"{folder} failed: {type(error).__name__}: {error}", file=sys.stderr)

    def _balance(self, folder: str) -> None:
        """Evaluate a plain loss's run balanced afterwards, unless that was done before."""
        from depthbal.training.evaluate import evaluate_run

        done = json.loads(self._posthoc_file(folder).read_text()) if self._has(folder) else {}
        for sigma in self.posthoc:
            if sigma in done and Path(done[sigma]).is_dir():
                continue
            wanted = "auto" if sigma == "auto" else float(sigma)
            try:
                _, result = evaluate_run(folder, posthoc=wanted)  # type: ignore[arg-type]
            except ConfigError:  # a balanced loss, or one of vectors
                return
            done[sigma] = str(result)
        if done:
            write_json(self._posthoc_file(folder), done)

    def _posthoc_file(self, folder: str) -> Path:
        return Path(folder) / "eval" / "posthoc.json"

    def _has(self, folder: str) -> bool:
        return self._posthoc_file(folder).is_file()

    # ---- results ----

    def rows(self) -> dict[str, list[Path]]:
        """Return the results of every method, one per seed that did not fail."""
        rows: dict[str, list[Path]] = {}
        for method, runs in self.work.items():
            done = [Path(folder) for folder in runs if folder not in self.failed]
            rows[method] = done
            balanced = [
                json.loads(self._posthoc_file(str(f)).read_text())
                for f in done
                if self._has(str(f))
            ]
            for sigma in self.posthoc:
                if found := [Path(one[sigma]) for one in balanced if sigma in one]:
                    rows[f"{method} balanced afterwards, sigma {sigma}"] = found
        return {name: found for name, found in rows.items() if found}

    def table(self) -> dict[str, Any]:
        """Return what table.json holds: per method its runs, and median and values per metric."""
        table: dict[str, Any] = {}
        for method, folders in self.rows().items():
            results = [json.loads((f / "metrics.json").read_text()) for f in folders]
            table[method] = {"runs": [str(folder) for folder in folders]}
            for path in self.metrics or self._default_metrics():
                values = [value for one in results if (value := _at(one, path)) is not None]
                if values:
                    median = statistics.median(values)
                    table[method][path] = {"median": median, "values": values}
        return table

    def _default_metrics(self) -> list[str]:
        from depthbal.training.settings import parse, task_class

        _, (config, overrides) = self._runs()[0]
        return list(task_class(parse(self.parser, overrides, config)).study_metrics)

    def write(self) -> None:
        """Write table.json, table.md and report.html, print the table.

        Raises:
            ConfigError: A training failed; names each and its error.
        """
        from rich.console import Console
        from rich.markdown import Markdown

        from depthbal.commands.tables import try_report

        table = self.table()
        text = _markdown(table)
        write_json(self.out / "table.json", table)
        with replacing(self.out / "table.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        console = Console()
        console.print(Markdown(text))
        results = [folder for folders in self.rows().values() for folder in folders]
        report = try_report(results, self.out / "report.html") if results else None
        for path in (self.out / "table.md", report):
            if path is not None:
                console.print(f"Written: {path}", highlight=False, soft_wrap=True)
        if self.failed:
            lines = [f"{run}: {_first_line(error)}" for run, error in self.failed.items()]
            raise StudyError(f"{len(lines)} of the runs failed\n  " + "\n  ".join(lines))


class StudyError(DepthbalError):
    """Some runs of a study failed; the others are done."""


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _name(config: str, configs: Sequence[str]) -> str:
    """Return a config's name: its file's, or the whole path where others share that.

    Example:
        >>> _name("rooms/gai.yaml", ["rooms/gai.yaml", "rooms/mse.yaml"])
        'gai'
    """
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


def _markdown(table: Mapping[str, Any]) -> str:
    """Return the table as markdown: median, and the range where there are several seeds."""
    paths = list(dict.fromkeys(path for row in table.values() for path in row if path != "runs"))
    lines = ["| method | runs | " + " | ".join(paths) + " |", "|---" * (len(paths) + 2) + "|"]
    for method, row in table.items():
        cells = []
        for path in paths:
            values = row.get(path, {}).get("values", [])
            spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
            cells.append(f"{row[path]['median']:.4g}{spread}" if values else "-")
        lines.append(f"| {method} | {len(row['runs'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
