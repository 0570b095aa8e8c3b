"""Files written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lichen import atomic
from lichen.atomic import write_atomic


def test_written_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.lichen"
    write_atomic(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomic(str(path), memoryview(b"two"))
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_respected(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "ours", b"")
        (tmp_path / "usual").write_bytes(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_permissions_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/null")
def test_devices_are_left_alone() -> None:
    write_atomic("/dev/null", b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt if failing == "fsync" else OSError("disk full")

    path = tmp_path / "a.lichen"
    path.write_bytes(b"old")
    monkeypatch.setattr(*((atomic.os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "a", b"")
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path, b"")
