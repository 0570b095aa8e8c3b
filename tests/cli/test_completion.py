"""Completion scripts: bash's is run, the others' contents are looked at."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lichen.cli import main
from lichen.models import REGISTRY


@pytest.fixture
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", request.param]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lichen en", ["encode"]),
        ("lichen encode --target-b", ["--target-bytes", "--target-bpp"]),
        ("lichen encode --model min", sorted(name for name in REGISTRY if name.startswith("min"))),
        ("lichen encode ph", ["photo.png", "photos"]),
        ("lichen decode a.lichen -o ph", ["photo.png", "photos"]),
        ("lichen train --data ph", ["photos"]),
        ("lichen completion b", ["bash"]),
    ],
)
def test_bash(script: str, words: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.png").touch()
    ask = f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _shtab_lichen"
    code = f'{script}\ncomplete -p lichen >&2\n{ask}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(expected)
    assert "_shtab_lichen" in done.stderr


@pytest.mark.parametrize("script", ["zsh", "tcsh"], indirect=True)
def test_other_shells(script: str) -> None:
    assert "lichen" in script.splitlines()[0] or "complete lichen" in script
    for word in ("encode", "decode", "target-bytes", "minnen2018-joint"):
        assert word in script


def test_another_shell_is_wrong_usage() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "cmd"])
