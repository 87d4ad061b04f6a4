"""Which runs are repetitions of one method, and what runs are called."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthbal.reports.results import Result


@dataclass(frozen=True)
class Method:
    """One or several runs that differ in nothing but the seed.

    Attributes:
        name: shown to people.
        runs: places in the list of results, by increasing seed.
        seeds: of these runs, None if unknown.
    """

    name: str
    runs: tuple[int, ...]
    seeds: tuple[int | None, ...]


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as much of the parents as tells them apart.

    Example:
        >>> run_names([Path("/a/gai"), Path("/b/gai"), Path("/b/mse")])
        ['a/gai', 'b/gai', 'mse']
    """
    full = [path.resolve() for path in paths]
    names = [path.name or str(path) for path in full]
    for depth in range(2, max(len(path.parts) for path in full) + 1):
        clashing = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in clashing else name
            for name, path in zip(names, full, strict=True)
        ]
    return names


def seed_of(settings: Mapping[str, Any], record: Mapping[str, Any]) -> int | None:
    """Return the seed of a training, None if it is unknown; run.json knows one that was drawn."""
    for seed in (settings.get("seed_everything"), record.get("seed")):
        if isinstance(seed, int) and not isinstance(seed, bool):
            return seed
    return None


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without ``seed_everything`` and the data's ``seed``.

    Example:
        >>> one = {"seed_everything": 0, "data": {"init_args": {"seed": 0, "root": "x"}}}
        >>> without_seed(one)
        {'data': {'init_args': {'root': 'x'}}}
    """
    kept = {name: value for name, value in settings.items() if name != "seed_everything"}
    data = kept.get("data")
    if isinstance(data, Mapping):
        own = {name: value for name, value in data.items() if name != "seed"}
        arguments = own.get("init_args")
        if isinstance(arguments, Mapping):
            own["init_args"] = {name: v for name, v in arguments.items() if name != "seed"}
        kept["data"] = own
    return kept


def methods_of(results: Sequence["Result"]) -> tuple[Method, ...]:
    """Return the methods in the order of their first run.

    Runs of the same settings are one method if their seeds are known and differ; else the same
    training would count several times, and every run is a method of its own.
    """
    places: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        places.setdefault(result.method, []).append(i)
    methods = []
    shared = [common_name([results[i].name for i in runs]) for runs in places.values()]
    for runs in places.values():
        seeds = [results[i].seed for i in runs]
        known = [seed for seed in seeds if seed is not None]
        if len(set(known)) < len(runs):
            methods += [Method(results[i].name, (i,), (results[i].seed,)) for i in runs]
            continue
        ordered = sorted(runs, key=lambda i: results[i].seed or 0)
        names = [results[i].name for i in ordered]
        name = common_name(names)
        if shared.count(name) > 1:  # another method's runs have it in common too
            name = "; ".join(names)
        methods.append(Method(name, tuple(ordered), tuple(sorted(known))))
    return tuple(sorted(methods, key=lambda method: min(method.runs)))


def common_name(names: Sequence[str]) -> str:
    """Return what the names of repetitions have in common.

    Example:
        >>> common_name(["gai-10", "gai-11"]), common_name(["seed0/gai", "seed1/gai"])
        ('gai', 'gai')
        >>> common_name([f"mse-{seed}, balanced afterwards (sigma 1)" for seed in (0, 1)])
        'mse, balanced afterwards (sigma 1)'
    """
    if len(set(names)) == 1:
        return names[0]
    parts = [name.partition(", balanced afterwards") for name in names]
    folders = [folder for folder, *_ in parts]
    leaves = {folder.rpartition("/")[2] for folder in folders}
    if len(leaves) == 1:
        start = leaves.pop()
    else:
        columns = itertools.takewhile(lambda c: len(set(c)) == 1, zip(*folders, strict=False))
        start = "".join(column[0] for column in columns)
        if any(folder[len(start) : len(start) + 1].isdigit() for folder in folders):
            start = start.rstrip("0123456789")  # "gai-1" of gai-10 and gai-11
        start = start.rstrip("-_ /.")
    return (start or folders[0]) + "".join(parts[0][1:])
