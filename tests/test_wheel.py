"""The wheel holds all of depthbal: what runs from the sources runs from it."""

import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import yaml

import depthbal

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_every_module_config_and_asset_and_the_command(tmp_path):
    source, caches = tmp_path / "source", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "depthbal", source / "depthbal", ignore=caches)
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as content:
        names = set(map(Path, content.namelist()))
        (about,) = (name.parent for name in names if name.name == "entry_points.txt")
        assert b"depthbal = depthbal.commands:main" in content.read(f"{about}/entry_points.txt")
        metadata = message_from_bytes(content.read(f"{about}/METADATA"))
    assert {name for name in names if name.parts[0] == "depthbal"} == files
    assert metadata["Version"] == depthbal.__version__
    for bounded in re.findall(r"`([\w-]+)[<=]", (ROOT / "docs" / "install.md").read_text("utf-8")):
        assert any(line.startswith(bounded) for line in metadata.get_all("Requires-Dist"))


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == depthbal.__version__
    assert cited["preferred-citation"]["url"] in (ROOT / "README.md").read_text(encoding="utf-8")
