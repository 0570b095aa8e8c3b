"""Paths and URLs: what is found, read and written, on this machine, in memory, and in a store that speaks S3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lichen import places
from lichen.atomic import write_atomic
from lichen.places import PlaceError

SUFFIXES = {".png", ".jpg"}


def names(place: str, refused: list[OSError] | None = None) -> list[str]:
    many, found = places.find(place, SUFFIXES, ([] if refused is None else refused).append)
    assert many
    assert all(f.bytes > 0 and f.modified is not None for f in found)
    return [f.name for f in found]


TREE = ["a.png", "b.JPG", "notes.txt", ".hidden.png", ".git/c.png", "sub/d.jpg", "sub/deep/e.png", "sub/f[1].png"]
"""Files whose contents are their names."""

PICTURES = ["a.png", "b.JPG", "sub/d.jpg", "sub/deep/e.png", "sub/f[1].png"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.png", "a.lichen"),
        (str(Path("b.c", "a")), str(Path("b.c", "a.lichen"))),
        ("memory://a.tar.png", "memory://a.tar.lichen"),
        ("s3://bucket.of/key.d/a", "s3://bucket.of/key.d/a.lichen"),
    ],
)
def test_with_suffix(place: str, expected: str) -> None:
    assert places.with_suffix(place, ".lichen") == expected


def test_join() -> None:
    assert places.join("s3://bucket/a/", "b/c.png") == "s3://bucket/a/b/c.png"
    assert Path(places.join("a", "b/c.png")) == Path("a", "b", "c.png")


@pytest.mark.parametrize("name", ["../a.png", "a/../../b.png", "/etc/a.png", "a//b.png", "a/./b.png", ""])
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not places.stays_below(name)


def test_names_that_stay() -> None:
    assert places.stays_below("a..b/c.png") and places.stays_below(".../c.png")


# ---- this machine ----------------------------------------------------------------------------------------------------


def test_a_folder(tree: Path) -> None:
    assert names(str(tree)) == PICTURES
    assert names(tree.as_uri()) == PICTURES
    found = places.find(tree.as_uri(), SUFFIXES, print)[1]
    assert [f.place for f in found] == [
        (tree / name).as_uri().replace("%5B", "[").replace("%5D", "]") for name in PICTURES
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("*", PICTURES),  # folders that match are walked
        ("**", PICTURES),
        ("**/*.png", ["a.png", "sub/deep/e.png", "sub/f[1].png"]),
        ("s?b/*.jpg", ["sub/d.jpg"]),
        ("[ab].*", ["a.png", "b.JPG"]),
        ("*.gif", []),
        ("nowhere/*", []),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(str(tree / pattern)) == expected
    monkeypatch.chdir(tree)
    assert names(pattern) == expected


def test_a_file_that_is_called_like_a_pattern(tree: Path) -> None:
    path = str(tree / "sub" / "f[1].png")
    many, (found,) = places.find(path, SUFFIXES, print)
    assert (many, found.place, found.name) == (False, path, "f[1].png")


def test_one_name_for_all_spellings(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    spellings = ("a.png", "./a.png", "sub/../a.png", str(tree / "a.png"), (tree / "a.png").as_uri())
    assert {places.canonical(s) for s in spellings} == {os.path.realpath(tree / "a.png")}
    assert places.canonical("s3://b/a.png") == "s3://b/a.png"
    assert places.canonical("a\0b") == "a\0b"


def test_a_pattern_below_a_folder_that_is_called_like_one(tree: Path) -> None:
    (tree / "two [1]").mkdir()
    (tree / "two [1]" / "g.png").write_bytes(b"g")
    assert names(str(tree / "two [1]" / "*.png")) == ["g.png"]


def test_what_is_no_pattern_is_a_sentence(tree: Path) -> None:
    if not list(tree.glob("**")):  # later Pythons take it
        pytest.skip("any pattern is one")
    try:
        list(tree.glob("a**b"))
    except ValueError:
        with pytest.raises(PlaceError, match=r"\*\* for any folders"):
            names(str(tree / "a**b"))


def test_single_files_are_taken_whatever_they_are(tree: Path) -> None:
    for name in ("notes.txt", "missing.png", ".hidden.png"):
        for place in (str(tree / name), (tree / name).as_uri()):
            many, (found,) = places.find(place, SUFFIXES, print)
            assert (many, found.place, found.name) == (False, place, name)


def test_links(tree: Path) -> None:
    """Linked files are found, folders are not entered through links, so no cycle is; a link to nothing is told of."""
    (tree / "sub" / "up").symlink_to(tree, target_is_directory=True)
    (tree / "linked.png").symlink_to(tree / "a.png")
    (tree / "nothing.png").symlink_to(tree / "gone.png")
    refused: list[OSError] = []
    many, found = places.find(str(tree), SUFFIXES, refused.append)
    assert many and [f.name for f in found] == sorted([*PICTURES, "linked.png"])
    assert [Path(e.filename).name for e in refused] == ["nothing.png"]
    identities = {f.name: f.identity for f in found}
    assert identities["linked.png"] == identities["a.png"] != identities["b.JPG"]
    assert names(str(tree / "**" / "*.jpg")) == ["sub/d.jpg"]
    assert names(str(tree / "s*" / "*")) == [name for name in PICTURES if name.startswith("sub/")]
    (tree / "round.lichen").symlink_to(tree / "round.lichen")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomic(tree / "round.lichen", b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipes_are_no_pictures(tree: Path) -> None:
    os.mkfifo(tree / "pipe.png")
    assert names(str(tree)) == PICTURES


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_folders_that_cannot_be_read_are_told_of(tree: Path) -> None:
    (tree / "sub").chmod(0)
    refused: list[OSError] = []
    assert names(str(tree), refused) == ["a.png", "b.JPG"]
    assert len(refused) == 1
    (tree / "sub").chmod(0o755)


def test_existing(tree: Path) -> None:
    wanted = [
        str(tree / "a.png"),
        str(tree / "missing"),
        (tree / "sub" / "d.jpg").as_uri(),
        (tree / "no" / "x").as_uri(),
    ]
    there = places.existing(wanted)
    assert list(there) == [wanted[0], wanted[2]]
    assert there[wanted[0]].bytes == len("a.png") and there[wanted[2]].identity is not None
    assert not places.is_folder("x" * 5000)
    assert places.is_folder(str(tree)) and not places.is_folder(wanted[0]) and places.is_folder(tree.as_uri())


def test_a_file_url_is_written_as_files_are(tree: Path) -> None:
    url = (tree / "new" / "g.png").as_uri()
    places.write(url, b"bytes")
    assert places.read(url) == b"bytes"
    assert [p.name for p in (tree / "new").iterdir()] == ["g.png"]
    with pytest.raises(PlaceError, match="cannot be written"):
        places.write((tree / "a.png" / "below").as_uri(), b"")


def test_what_killed_writers_leave_is_swept(tree: Path) -> None:
    for name in (".lichen-0a-1.part", ".lichen-0b-1.part", ".lichen-0a-1.png"):
        (tree / name).touch()
    places.sweep([(tree / "a.lichen").as_uri(), (tree / "nowhere" / "b.lichen").as_uri()], "0a-")
    left = sorted(p.name for p in tree.iterdir() if p.name.startswith(".lichen"))
    assert left == [".lichen-0a-1.png", ".lichen-0b-1.part"]


# ---- stores ----------------------------------------------------------------------------------------------------------


def fill(url: str) -> None:
    for name in TREE:
        places.write(f"{url}/{name}", name.encode())


def check_store(url: str) -> None:
    """The same in every store."""
    assert not places.is_folder(f"{url}/tree")
    assert places.existing([f"{url}/tree/a", f"{url}/tree/b"]) == {}
    fill(f"{url}/tree")
    assert places.is_folder(f"{url}/tree")
    assert names(f"{url}/tree") == PICTURES
    assert names(f"{url}/tree/sub/*.jpg") == ["d.jpg"]
    assert names(f"{url}/tree/s*") == PICTURES[2:]
    assert names(f"{url}/tree/**/*.png") == ["a.png", "sub/deep/e.png", "sub/f[1].png"]
    assert names(f"{url}/tree/*.gif") == []
    found = places.find(f"{url}/tree", SUFFIXES, print)[1]
    assert [places.read(f.place) for f in found] == [name.encode() for name in PICTURES]
    many, (found_one,) = places.find(f"{url}/tree/notes.txt", SUFFIXES, print)
    assert (many, found_one.name, found_one.bytes) == (False, "notes.txt", 9)
    many, (found_one,) = places.find(f"{url}/tree/missing.png", SUFFIXES, print)
    assert (many, found_one.bytes) == (False, 0)
    wanted = [f"{url}/tree/sub/d.jpg", f"{url}/tree/sub/f[1].png", f"{url}/tree/sub/no", f"{url}/tree/a.png"]
    there = places.existing(wanted)
    assert sorted(there) == sorted([wanted[0], wanted[1], wanted[3]])
    assert there[wanted[3]].identity == found[0].identity != there[wanted[0]].identity
    assert there[wanted[3]].modified == found[0].modified
    places.write(wanted[0], b"another")
    assert places.read(wanted[0]) == b"another"
    with pytest.raises(PlaceError, match=r"missing.*cannot be read"):
        places.read(f"{url}/tree/missing")


def test_memory(memory: str) -> None:
    check_store(memory)


def test_s3(s3: str) -> None:
    check_store(s3)
    with pytest.raises(PlaceError, match="cannot be written"):
        places.write("s3://no-such-bucket/a.png", b"")


class Moving(MemoryFileSystem):
    """A store that can rename, as SFTP's and HDFS's can; it fails where a test says so."""

    protocol = "moving"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    steps: list[str] = []  # noqa: RUF012
    broken = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("moving://", "memory://"))

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        self.steps.append(path)
        super().pipe_file(path, value[:1] if self.broken == "pipe" else value)
        if self.broken == "pipe":
            raise ConnectionError("the line is dead")

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.broken == "mv":
            raise ConnectionError("the line is dead")
        if self.exists(path2):
            raise FileExistsError(path2)
        self.store[self._strip_protocol(path2)] = self.store.pop(self._strip_protocol(path1))


def test_where_names_can_change_a_file_gets_its_own_at_the_end() -> None:
    fsspec.register_implementation("moving", Moving, clobber=True)
    for content in (b"first", b"second"):
        places.write("moving://out/a.lichen", content, "0a-")
        assert places.read("moving://out/a.lichen") == content
    assert all(step.startswith("/out/.lichen-0a-") and step.endswith(".part") for step in Moving.steps)
    for Moving.broken in ("pipe", "mv"):
        with pytest.raises(PlaceError, match="the line is dead"):
            places.write("moving://out/b.lichen", b"third")
    assert list(Moving.store) == ["/out/a.lichen"]
    Moving.store["/out/.lichen-0a-1.part"] = Moving.store["/out/.lichen-0b-1.part"] = Moving.store["/out/a.lichen"]
    places.sweep(["moving://out/a.lichen"], "0a-")
    assert sorted(Moving.store) == ["/out/.lichen-0b-1.part", "/out/a.lichen"]


@pytest.mark.parametrize("url", ["gopher://a/b.png", "abfs://nowhere/a.png"])
def test_urls_that_nothing_opens_are_a_sentence(url: str) -> None:
    with pytest.raises(PlaceError, match="cannot be opened"):
        places.read(url)
