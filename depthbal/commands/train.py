"""``depthbal train``: whatever task and data the config names."""

import argparse
from collections.abc import Sequence
from contextlib import suppress

from depthbal.commands import import_classes

HELP = """\
usage: depthbal train [--config NAME|FILE] [--out DIR] [--SECTION.KEY VALUE ...]
       depthbal train --resume RUN [--trainer.max_epochs N]

Trains the task that the config names, evaluates the last epoch per bin on the test split, prints
the result, and writes a run folder with report.html. Without a config: the embedded rooms, no
download, a few minutes.

  --config NAME|FILE    a shipped config (rooms/gai, nyud2/gai, age/drawn/vanilla,
                        hmr/synthetic/gai, ...) or your own; several are laid over each
                        other; `base:` in a file names the one it is a difference to
  --out DIR             the run folder; default runs/NAME[-N]
  --overwrite           delete a run that is there
  --resume RUN          go on with a run in place, also after a kill
  --help all            every setting of task, data and trainer; --print_config prints them as YAML

Settings that people change (anything in a config can be given so):
  --data.root DIR                          where the data are
  --data FolderDataModule                  folders rgb/ and depth/ instead of a config's data
  --data.batch_size N  --data.num_workers N  --data.seed N
  --model.criterion NAME                   GAILoss BNILoss BMCLoss MSELoss L1Loss HuberLoss
                                           SILogLoss FocalRLoss ReweightedLoss CombinedLoss
                                           BinsLoss (with a head), or a class path
  --model.model.head "{kind: bins}"        also linear, log, bounded
  --model.criterion.init_noise_sigma X     and --model.criterion.noise fixed|learned|depth
  --model.model.weights NAME|FILE|null     what the network starts from
  --model.weights_from RUN                 start from the network of another run, with
  --model.freeze encoder                   parts that are not trained
  --model.encoder_lr X  --model.layer_decay X    factors of its learning rate, of its layers'
  --model.lora RANK                        low-rank updates in place of the encoder's weights
  --model.gradient_checkpointing true      less memory, more time
  --model.ema 0.999                        an average of the weights
  --model.optimizer.lr X                   learning rate
  --trainer.max_epochs N  --trainer.accelerator cpu|gpu  --trainer.devices N
  --trainer.precision bf16-mixed|32-true   default: bfloat16 where it is native
  --seed_everything N                      of the network's start

Examples:
  depthbal train
  depthbal train --config nyud2/gai --data.root DIR --out runs/gai
  depthbal train --config rooms/gai --data FolderDataModule --data.root DIR --data.scale 0.001
"""


def main(arguments: Sequence[str]) -> None:
    """Run a training."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--out")
    own.add_argument("--overwrite", action="store_true")
    own.add_argument("--resume")
    known, rest = own.parse_known_args(arguments)
    if {"-h", "--help"} & set(rest) and rest[-2:] != ["--help", "all"]:
        print(HELP, end="")
        return

    from depthbal.commands.tables import print_metrics, try_report
    from depthbal.training.settings import make_parser, parse, split_configs
    from depthbal.training.train import train

    import_classes()
    if known.resume is None and not split_configs(rest)[0]:
        rest = ["--config", "rooms/gai", *rest]
    if rest[-2:] == ["--help", "all"]:
        parser = make_parser()
        parser.print_help()
        settings = parse(parser, rest[:-2])
        for key in ("model", "data"):
            print(f"\n--{key} {settings[key].class_path}:")
            with suppress(SystemExit):
                parser.parse_args([f"--{key}.help={settings[key].class_path}"])
    elif "--print_config" in rest:
        parse(make_parser(), rest)
    else:
        run, result = train(rest, known.out, known.overwrite, known.resume)
        if result is not None:
            print_metrics(result)
            seconds = run.read_record()["duration_s"]
            minutes, rest_s = divmod(round(seconds), 60)
            took = f"{seconds:.1f} s" if seconds < 60 else f"{minutes} min {rest_s} s"
            print(f"Training and evaluation took {took}.")
            try_report([run.path], run.report)
            print(f"Run folder: {run.path}")
