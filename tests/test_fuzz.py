"""Damaged files of every kind give LichenErrors or pictures; and the script that says so would say otherwise."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the script limits memory by POSIX means", allow_module_level=True)

import failing_workers
import fuzz

from lichen import codec
from lichen.container import Container


@pytest.fixture(scope="module")
def files() -> list[fuzz.Original]:
    return fuzz.originals()


def test_two_thousand_inputs(tmp_path: Path) -> None:
    summary = fuzz.fuzz(2000, keep=tmp_path)
    assert [(r.number, r.what, r.trace) for r in summary.wrong] == []
    assert list(tmp_path.iterdir()) == []
    found = summary.outcomes
    assert sum(found.values()) == 2000
    assert found["picture"] > 100  # damage that passes every check
    for place, least in (("container", 200), ("coder", 400), ("alpha", 30), ("codec", 30)):  # and that none misses
        assert found[f"DamagedError ({place})"] > least, found
    assert found["VersionError (container)"] > 20
    assert found["WeightsError (codec)"] > 20
    assert re.fullmatch(
        r"2,000 inputs: (\d[\d,]* \w+, )+\d[\d,]* \w+; nothing but LichenError was raised; "
        r"slowest \d+\.\d\d s \(input \d+, .+\); largest memory \+\d+ MB \(input \d+, .+\)",
        summary.line(),
    )


def test_files_are_written_as_lichen_writes_them(files: list[fuzz.Original]) -> None:
    kinds = set()
    for file in files:
        data = fuzz.written([(b"HEAD", fuzz.head_payload(file.head, len(file.body))), *file.body])
        kinds |= {kind for kind, _ in file.body}
        if b"note" not in dict(file.body):
            assert Container.from_bytes(data).to_bytes() == data
        assert fuzz.outcome(data, file.model) == "picture"
    assert kinds == {b"TILE", b"LAYR", b"ALPH", b"ICCP", b"EXIF", b"XMP ", b"note"}


def test_an_input_follows_from_its_number(files: list[fuzz.Original]) -> None:
    first = [fuzz.damaged(files, 5, n) for n in range(50)]
    assert first == [fuzz.damaged(files, 5, n) for n in range(50)]
    assert len({data for _, _, data in first}) > 45
    assert first != [fuzz.damaged(files, 6, n) for n in range(50)]


def test_what_is_no_lichen_error_is_reported(files: list[fuzz.Original], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(codec, "decode", fails)
    report = fuzz.run(files, fuzz.Models.of(files), 0, 0, fuzz.peak())
    assert report.outcome == "KeyError"
    assert "a bug" in report.trace
    summary = fuzz.Summary()
    summary.add(report)
    assert summary.wrong == [report]
    assert "1 went wrong" in summary.line()


def test_processes_that_die_or_hang_are_reported_and_others_go_on() -> None:
    died = list(fuzz.reports(0, 4, target=failing_workers.dies))
    assert [r.number for r in died] == [0, 1, 2, 3]
    assert [bool(r.trace) for r in died] == [False, True, False, False]
    assert died[1].outcome == "the process ended with -9"
    hung = list(fuzz.reports(0, 3, timeout=3.0, target=failing_workers.hangs))
    assert [(r.number, r.outcome) for r in hung] == [(0, "picture"), (1, "no end after 3 s"), (2, "picture")]


def test_failing_inputs_are_kept(
    files: list[fuzz.Original], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    failure = fuzz.Report(1, "", "KeyError", 0.0, 0.0, "KeyError: 'a bug'")
    monkeypatch.setattr(fuzz, "originals", lambda: files)
    monkeypatch.setattr(fuzz, "reports", lambda *_: iter([failure]))
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--inputs", "3", "--keep", str(kept)])
    assert fuzz.main() == 1
    assert sorted(p.name for p in kept.iterdir()) == ["0-1.lichen", "0-1.txt"]
    assert "1 went wrong" in capsys.readouterr().out
    assert fuzz.only(0, 1, tmp_path) == 0
    assert (tmp_path / "0-1.lichen").read_bytes() == (kept / "0-1.lichen").read_bytes()
