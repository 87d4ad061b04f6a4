"""Every shipped config of ages builds a task, data and a trainer."""

import pytest

from depthbal.adapters.age.application import AGE
from depthbal.training.cli import TrainCLI
from depthbal.training.configs import expand_configs
from tests.adapters.age.helpers import CONFIGS

LOSS_OF = {
    "vanilla": "L1Loss",
    "mse": "MSELoss",
    "inverse": "ReweightedLoss",
    "sqrt_inverse": "ReweightedLoss",
    "sqrt_inverse_fds": "ReweightedLoss",
    "lds": "ReweightedLoss",
    "lds_fds": "ReweightedLoss",
    "fds": "L1Loss",
    "focal_r": "FocalRLoss",
    "plain": "L1Loss",
    "gai": "GAILoss",
    "bmc": "BMCLoss",
    "bni": "BNILoss",
}
SHIPPED = [path for path in sorted(CONFIGS.rglob("*.yaml")) if not path.stem.endswith("base")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_builds_the_loss_of_its_name(path, tmp_path):
    line = ["--config", str(path), "--out", str(tmp_path / "run")]
    retrains = path.stem.startswith("rrt_")
    if retrains:  # which takes over the settings of its base run
        base = path.parent / "vanilla.yaml"
        line = ["--config", str(base), *line, "--model.base_run", str(tmp_path)]
    line += ["--model.model.library=timm", "--model.model.backbone=test_resnet"]
    if path.parent == CONFIGS:
        (tmp_path / "imdb_wiki.csv").write_text("age,path,split\n30,a.jpg,train\n40,a.jpg,test\n")
        (tmp_path / "a.jpg").touch()
        line += ["--data.root", str(tmp_path)]
    cli = TrainCLI(AGE, expand_configs(line))
    assert type(cli.model.criterion).__name__ == LOSS_OF[path.stem.removeprefix("rrt_")]
    assert cli.model.retrain == retrains
    assert cli.trainer.max_epochs == (30 if retrains else 8 if "drawn" in path.parts else 90)
