"""Settings: config files and command lines to objects, and back to config.yaml."""

import argparse
import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from importlib.resources import files
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_loader
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer

from depthbal.data.datamodule import MOVED
from depthbal.data.label_data import LabelData
from depthbal.errors import ConfigError, DepthbalError
from depthbal.training.task import Task


def make_parser(
    prog: str = "depthbal train", sections: Sequence[str] = ("trainer", "model", "data")
) -> ArgumentParser:
    """Return the parser of a training's settings: seed, trainer, model (the task) and data."""
    set_loader("depthbal", _load, (yaml.YAMLError,))
    form: Any = {"exit_on_error": False, "allow_abbrev": False, "parser_mode": "depthbal"}
    parser = ArgumentParser(prog=prog, **form)
    parser.add_argument("--config", action="config", help="A config file, or a shipped one's name.")
    parser.add_argument("--seed_everything", type=int | bool, default=0, help="Of the network.")
    if "trainer" in sections:
        parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    for section, base in (("model", Task), ("data", LabelData)):
        if section in sections:
            parser.add_subclass_arguments(base, section, fail_untyped=False, required=True)
    return parser


def _load(text: str) -> Any:
    """Read YAML; jsonargparse hands null on to an option of a class in a class as None."""
    return None if text.strip() == "None" else get_loader("yaml")(text)


def parse(
    parser: ArgumentParser, arguments: Sequence[str], below: Mapping[str, Any] | None = None
) -> Namespace:
    """Return what a command line means: its configs and settings laid over ``below``, a config."""
    names, rest = split_configs(arguments)
    rest = classes_first(rest)
    config = own_defaults(reduce(lay_over, map(read_config, names), dict(below or {})), rest)
    try:
        return parser.parse_args([*(["--config", yaml.safe_dump(config)] if config else []), *rest])
    except (ArgumentError, TypeError) as error:
        raise ConfigError(f"{explain(str(error))}\n--help all lists all settings") from error


def options_of(arguments: Sequence[str]) -> list[list[str]]:
    """Return options with their values; several ones, as in ``--data.size 72 96``, a list."""
    options: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("--") or not options:
            options.append([])
        options[-1].append(argument)
    return [
        [name, f"[{','.join(values)}]"] if len(values) > 1 and "." in name else [name, *values]
        for name, *values in options
    ]


def classes_first(arguments: Sequence[str]) -> list[str]:
    """Put the choice of a class before its settings: jsonargparse drops those it has seen."""

    def dots(option: list[str]) -> int:
        name = option[0].partition("=")[0]
        return name.count(".") if name.startswith(("--model", "--data")) else 0

    return [argument for option in sorted(options_of(arguments), key=dots) for argument in option]


def own_defaults(config: dict[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Have an optimizer that is named start from its own class's defaults.

    jsonargparse keeps what the one before it, the config's or the task's own, has under the same
    name: Adam would decay weights as AdamW does.
    """
    task = (config.get("model") or {}).get("init_args") or {}
    given = task.get("optimizer") or {}
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--model.optimizer", "--model.optimizer.class_path", dest="name", nargs="?")
    name = own.parse_known_args(arguments)[0].name or given.get("class_path") or ""
    found = locate(name) if "." in name else getattr(torch.optim, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        return config
    if str(given.get("class_path")).rpartition(".")[2] != found.__name__:
        given = {}
    known = [(key, one.default) for key, one in inspect.signature(found).parameters.items()]
    plain_types = (int, float, str, tuple, type(None))
    defaults = {key: value for key, value in known if isinstance(value, plain_types)}
    optimizer = {"class_path": name, "init_args": {**defaults, **(given.get("init_args") or {})}}
    return lay_over(config, {"model": {"init_args": {"optimizer": optimizer}}})


def build(parser: ArgumentParser, settings: Namespace, section: str) -> Any:
    """Make the object of one section, or the trainer's keyword arguments."""
    try:
        chosen = Namespace(**{section: settings[section]})  # type: ignore[no-untyped-call]
        return parser.instantiate(chosen)[section]
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        if isinstance(error, DepthbalError):
            raise
        raise ConfigError(explain(str(error))) from error


def with_checkpoint(settings: Namespace, content: Mapping[str, Any]) -> Namespace:
    """Return settings whose network is made as the checkpoint's was, without its weight file."""
    settings = settings.clone()
    network = settings.model.init_args.model
    given = network.get("init_args") or {}
    for key, value in content["depthbal"]["model"]["init_args"].items():
        if key in given and given[key] is None:
            given[key] = value
    if "weights" in given:
        given["weights"] = None
    return settings


def task_class(settings: Namespace) -> type[Task]:
    """Return the class of the task that settings name."""
    found: type[Task] = locate(settings.model.class_path)  # type: ignore[assignment]
    return found


def differences(parser: ArgumentParser, stored: Path, wanted: Namespace) -> list[str]:
    """Return in which settings a run's config.yaml is not what is wanted, one text each."""
    ran = dict(_flat(yaml.safe_load(stored.read_text(encoding="utf-8"))))
    asked = dict(_flat(plain(parser, wanted)))
    # settled by the machine where it was left open
    open_ = {"trainer.precision": None, "trainer.accelerator": "auto"}
    left = {name for name, value in open_.items() if asked.get(name) == value}
    return [
        f"{name} {ran.get(name)}, not {asked.get(name)}"
        for name in sorted({*ran, *asked} - left)
        if ran.get(name) != asked.get(name)
    ]


def _flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as pairs of dotted name and value."""
    if not isinstance(settings, Mapping) or not settings:
        return [(prefix, settings)]
    dotted = f"{prefix}." if prefix else ""
    return [pair for key in settings for pair in _flat(settings[key], f"{dotted}{key}")]


def plain(parser: ArgumentParser, settings: Namespace) -> dict[str, Any]:
    """Return settings as config.yaml holds them, paths absolute, so that any folder will do."""
    settings = settings.clone()
    settings.pop("config", None)
    # by way of JSON, which writes an enumeration or a path as its text
    text = parser.dump(settings, format="json", skip_unset=False, skip_validation=True)
    content: dict[str, Any] = json.loads(text)
    task, data = content["model"]["init_args"], content["data"].get("init_args") or {}
    network = (task.get("model") or {}).get("init_args") or {}

    # published weights have a name, which may be that of a folder here as well
    def of_weights(path: str) -> bool:
        return os.path.isfile(path) or os.path.isfile(os.path.join(path, "config.json"))

    there = ((data, "root", os.path.isdir), (network, "weights", of_weights))
    for part, name, is_there in (*there, (task, "weights_from", os.path.exists)):
        if isinstance(part.get(name), str) and is_there(part[name]):
            part[name] = os.path.abspath(part[name])
    return content


def explain(message: str) -> str:
    """Return a message of jsonargparse with every line of it once, without its inner life."""
    noise = (
        *("Does not validate against", "Subtypes: ", "Errors:", "Given value", "Expected a path"),
        "Expected a <class 'NoneType'>",
    )
    facts = dict.fromkeys(line.strip().removeprefix("- ") for line in message.splitlines())
    told = "\n  ".join(fact for fact in facts if fact and not fact.startswith(noise))
    told += "".join(f"; {hint}" for name, hint in MOVED.items() if f"'{name}' is not" in told)
    told = re.sub("Expected a <class 'collections.abc.Sequence'>", "Expected a list: [VALUE]", told)
    return told.replace("Expected a <class 'tuple'>", "Expected several values")


# ---- config files ----


def find_config(name: str) -> Path:
    """Return the file of a config: a path, or the name of a shipped one such as ``nyud2/gai``."""
    shipped = Path(str(files("depthbal"))) / "configs"
    short = name.removeprefix("configs/").removesuffix(".yaml")
    for path in (Path(name), shipped / f"{short}.yaml"):
        if path.is_file():
            return path
    there = sorted(
        path.relative_to(shipped).with_suffix("").as_posix() for path in shipped.rglob("*.yaml")
    )
    near = [one for one in there if one.startswith(short.split("/")[0] + "/")]
    raise ConfigError(f"there is no config file {name}; shipped: {', '.join(near or there)}")


def read_config(name: str | Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a config with what it is a difference to: its ``base:``, beside it or shipped."""
    path = find_config(str(name))
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own base")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"expected keys and values in {path}, got a {type(content).__name__}")
    base = content.pop("base", None)
    if base is None:
        return content
    beside = path.parent / str(base)
    below = read_config(beside if beside.is_file() else str(base), (*above, path.resolve()))
    return lay_over(below, content)


def lay_over(base: Mapping[str, Any], difference: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others laid over them; another class drops the first one's arguments."""
    out = dict(base)
    for key, value in difference.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            cls = old.get("class_path")
            value = lay_over(old, value) if value.get("class_path", cls) == cls else value
        out[key] = value
    return out


def split_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the configs that a command line names, in their order, and the rest of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError("--config needs the path or name of a config file") from error
    return known.config, rest
