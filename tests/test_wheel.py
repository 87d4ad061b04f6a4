"""The wheel alone, in an empty folder, is a working depthbal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.size=[24,32]"]
TINY += ["--data.n_train=8", "--data.n_val=4", "--data.n_test=4", "--data.batch_size=4"]
TINY += ["--data.num_workers=0"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel from a copy of the sources and unpack it, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "depthbal", source / "depthbal")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run([*pip, *build], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, cwd=folder
    )
    return site


def run(site: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("DEPTHBAL_RUN", None)
    command = [sys.executable, str(site / "bin" / "depthbal"), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_trains_in_an_empty_folder_with_a_config_it_brings(installed, tmp_path):
    shown = run(installed, tmp_path, "train", "--config", "rooms/mse", *TINY)
    assert "Run folder: runs/rooms-mse" in shown
    page = (tmp_path / "runs" / "rooms-mse" / "report.html").read_text(encoding="utf-8")
    assert "plotly" in page.lower()


def test_the_wheel_lists_its_commands_and_configs(installed, tmp_path):
    assert "study" in run(installed, tmp_path)
    configs = {path.stem for path in (installed / "depthbal" / "configs" / "nyud2").glob("*.yaml")}
    assert {"gai", "mse", "bmc"} <= configs
    assert (installed / "depthbal" / "configs" / "age" / "drawn" / "study.yaml").is_file()
