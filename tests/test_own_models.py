"""docs/own-models.md: its model, as a package beside Lichen, trains and writes files with the commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lichen import container
from lichen.errors import WeightsError
from lichen.models import everything

DOCUMENT = Path(__file__).parent.parent / "docs" / "own-models.md"
LICHEN = [sys.executable, "-m", "lichen"]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes for which the document's package is installed."""
    (name,) = re.findall(r"^# (\w+\.py)$", block("python"), re.M)
    section, entry = re.findall(r'^\[project\.entry-points\."(.*)"\]\n(.*)$', block("toml"), re.M)[0]
    information = tmp_path / "packages" / "my_codec-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-codec\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{section}]\n{entry.replace(chr(34), '')}\n")
    (tmp_path / "packages" / name).write_text(block("python"))
    return {**os.environ, "PYTHONPATH": str(tmp_path / "packages")}


def run(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LICHEN, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300)


def test_a_model_of_another_package(environment: dict[str, str], folder: Path, cache: Path, tmp_path: Path) -> None:
    listed = run(environment, "models")
    assert "\nmine\n" in listed.stdout, listed.stderr
    assert "wide" in listed.stdout
    small = ("--batch", "2", "--crop", "64", "--precision", "32-true", "--cache", cache)
    trained = run(
        environment, "train", "--model", "mine", "--data", folder, "--out", tmp_path / "run", "--steps", "3", *small
    )
    assert trained.returncode == 0, trained.stderr
    weights = ("--weights", tmp_path / "run" / "weights.safetensors")
    picture = sorted(folder.glob("*.png"))[0]
    for arguments in (
        ("encode", picture, "-o", tmp_path / "a.lichen"),
        ("decode", tmp_path / "a.lichen", "-o", tmp_path / "a.png"),
    ):
        done = run(environment, *arguments, *weights)
        assert done.returncode == 0, done.stderr
    file = container.Container.from_bytes((tmp_path / "a.lichen").read_bytes())
    assert file.header.model == "mine"
    without = run({**os.environ, "PYTHONPATH": ""}, "decode", tmp_path / "a.lichen", "-o", tmp_path / "b.png", *weights)
    assert without.returncode == 1
    assert "no model is called mine" in without.stderr


def test_a_package_that_cannot_be_imported(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "packages" / "my_codec.py").write_text("import not_there\n")
    refused = run(environment, "models")
    assert refused.returncode == 1
    assert refused.stderr.startswith("lichen: the models of my_codec cannot be had (ModuleNotFoundError")
    assert "Traceback" not in refused.stderr
    assert run(environment, "info", "--help").returncode == 0


def test_without_other_packages_there_are_ours() -> None:
    assert {entry.number: name for name, entry in everything().items()} == container.MODELS
    with pytest.raises(WeightsError, match="Lichen knows light"):
        from lichen.models import find

        find("mine")
