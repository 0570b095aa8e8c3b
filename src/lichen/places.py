"""Where pictures lie: paths of this machine ("photos/a.png"), and URLs that fsspec opens ("s3://bucket/a.png").

A file is written whole or not at all: on this machine by `atomic.write_atomic`, file:// too; where fsspec can rename
(SFTP, FTP, SMB, HDFS, ...) under a temporary name beside the target, then moved; elsewhere (S3 and other object stores,
memory://) by one upload, which a store shows when it is complete.

Names that begin with a dot are passed over in folders, and so are links to folders: no cycle can be walked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lichen.atomic import write_atomic
from lichen.errors import LichenError, reason_of

_TIMES = (
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "created",
)  # as fsspec's file systems name it


class PlaceError(LichenError):
    """A URL that cannot be read, written or listed, or a pattern that is none."""


@dataclass(frozen=True)
class Found:
    """A file. `name` is its path below the folder or below the fixed part of the pattern, with slashes."""

    place: str
    name: str
    bytes: int = 0
    modified: float | None = None  # seconds since 1970; None where it is not known
    identity: tuple[Any, ...] | None = None  # equal for two names of one file; None where there is none
    regular: bool = True  # no pipe, no device: what is written there overwrites something


# ---- names -----------------------------------------------------------------------------------------------------------


def is_url(place: str) -> bool:
    """Whether it is a URL and no path."""
    return "://" in place


def join(folder: str, name: str) -> str:
    """A name with slashes below a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder, name))


def with_suffix(place: str, suffix: str) -> str:
    """Another suffix in place of the last one, where there is one."""
    if not is_url(place):
        return str(Path(place).with_suffix(suffix))
    folder, _, name = place.rpartition("/")
    if not name:
        raise PlaceError(f"{place} names no file: give the output a name with -o")
    return f"{folder}/{PurePosixPath(name).with_suffix(suffix)}"


def canonical(place: str) -> str:
    """One name for all spellings of a place: absolute, through no links; a store's URL as it is."""
    path = _path_of(place)
    with contextlib.suppress(ValueError):  # a name with a NUL in it is no file's
        return place if path is None else os.path.normcase(os.path.realpath(path))
    return place


def _folder_of(url: str) -> str:
    return url[: url.rindex("/") + 1]


def stays_below(name: str) -> bool:
    """Whether a name with slashes stays below any folder that it is joined to: a store's key may hold "..", say."""
    strange = "\\:" if os.name == "nt" else ""
    return all(part not in ("", ".", "..") and not set(part) & set(strange) for part in name.split("/"))


# ---- listing ---------------------------------------------------------------------------------------------------------


def is_folder(place: str) -> bool:
    """Whether there is a folder, or, where a store has none, anything below."""
    path = _path_of(place)
    if path is not None:
        return _is_dir(path)
    fs, name = _system(place)
    with _errors(place, "listed"):
        return bool(fs.isdir(name))


def find(place: str, suffixes: Collection[str], unreadable: Callable[[OSError], None]) -> tuple[bool, list[Found]]:
    """The files that a place names, sorted, and whether it may name several.

    A folder names all files of these suffixes (".png", ...) that are below it, a pattern ("photos/**/*.jpg") those of
    its matches that are files of these suffixes or below folders that match; anything else names one file, there or
    not. unreadable: is told of what cannot be listed in a folder of this machine. PlaceError where a store cannot be
    listed.
    """
    path = _path_of(place)
    if path is None:
        return _find_in_store(place, suffixes)
    many, files = _find_here(path, suffixes, unreadable)
    if is_url(place):
        files = [dataclasses.replace(f, place=f"file://{Path(f.place).as_posix()}") for f in files]
    return many, files


def existing(places: Iterable[str]) -> dict[str, Found]:
    """Those that exist, in a store by one listing a folder. PlaceError where a store cannot be listed."""
    there: dict[str, Found] = {}
    in_stores: defaultdict[str, list[str]] = defaultdict(list)
    for place in places:
        path = _path_of(place)
        if path is None:
            in_stores[_folder_of(place)].append(place)
        elif (found := _described(path, place)) is not None:
            there[place] = found
    for folder, below in in_stores.items():
        fs, _ = _system(folder)
        with _errors(folder, "listed"):
            fs.invalidate_cache()
            infos = _infos(fs, folder, below)
        for place in below:
            info = infos.get(fs._strip_protocol(place))
            if info is not None:
                there[place] = _of_info(fs, place, place, info)
    return there


def _infos(fs: Any, folder: str, places: list[str]) -> dict[str, Mapping[str, Any]]:
    """What a file system says of some places of a folder, by their names in it."""
    try:
        if len(places) == 1:
            info = fs.info(places[0])
            return {fs._strip_protocol(places[0]): info} if info.get("type") == "file" else {}
        return {info["name"]: info for info in fs.ls(fs._strip_protocol(folder), detail=True)}
    except FileNotFoundError:
        return {}


def _find_here(
    path: Path, suffixes: Collection[str], unreadable: Callable[[OSError], None]
) -> tuple[bool, list[Found]]:
    if _is_dir(path):
        return True, _found(path, _walk(path, unreadable), suffixes, unreadable)
    if _is_pattern(str(path)) and not os.path.lexists(path):
        base, pattern = _split(path)
        matches = dict.fromkeys(_matches(base, pattern, unreadable))
        return True, _found(base, matches, suffixes, unreadable)
    return False, [_described(path, path.name) or Found(str(path), path.name)]


def _is_dir(path: Path) -> bool:
    """As Path's own, which raises where a folder above does not open."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _walk(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _is_pattern(place: str) -> bool:
    return any(c in place for c in "*?[")


def _split(path: Path) -> tuple[Path, str]:
    """The fixed part of a pattern, and the rest. Folders that are there are fixed, whatever they are called."""
    parts, fixed = path.parts, 0
    while not _is_pattern(parts[fixed]) or os.path.lexists(Path(*parts[: fixed + 1])):
        fixed += 1
    return Path(*parts[:fixed]), "/".join(parts[fixed:])


def _matches(base: Path, pattern: str, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    try:
        matches = list(base.glob(pattern))
    except (ValueError, NotImplementedError) as e:
        raise PlaceError(f"{pattern} is no pattern ({e}): write * for any name and ** for any folders") from e
    for path in matches:
        if any(part.startswith(".") for part in path.relative_to(base).parts):
            continue
        if not _is_dir(path):
            yield path
        elif not _through_a_link(base, path):
            yield from _walk(path, unreadable)


def _through_a_link(base: Path, folder: Path) -> bool:
    """Whether a folder, or one between it and the base, is a link."""
    return any(p.is_symlink() for p in (folder, *folder.parents) if p != base and base in p.parents)


def _found(
    base: Path, paths: Iterable[Path], suffixes: Collection[str], unreadable: Callable[[OSError], None]
) -> list[Found]:
    """The regular files among them that have such a suffix."""
    files = []
    for path in paths:
        if path.suffix.lower() not in suffixes:
            continue
        try:
            status = path.stat()
        except OSError as e:  # a link to nothing, a folder that lists but does not open
            unreadable(e)
            continue
        if stat.S_ISREG(status.st_mode):
            files.append(_of_status(str(path), path.relative_to(base).as_posix(), status))
    return sorted(files, key=lambda f: f.name)


def _described(path: Path, name: str) -> Found | None:
    try:
        return _of_status(str(path), name, path.stat())
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return None


def _of_status(place: str, name: str, status: os.stat_result) -> Found:
    regular = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return Found(place, name, status.st_size, status.st_mtime, (status.st_dev, status.st_ino), regular)


def _find_in_store(place: str, suffixes: Collection[str]) -> tuple[bool, list[Found]]:
    fs, path = _system(place)
    with _errors(place, "listed"):
        fs.invalidate_cache()
        if "*" in path and not place.startswith("http"):
            base = path[: path.index("*")].rpartition("/")[0]
            matches = fs.glob(path, detail=True)
            infos = dict(matches)
            for name, info in matches.items():
                if info["type"] == "directory":
                    infos.update(fs.find(name, detail=True))
        else:
            base = path
            try:
                info = fs.info(path)
            except FileNotFoundError:
                info = {"type": "file"}
            if info["type"] != "directory":
                return False, [_of_info(fs, place, place.rpartition("/")[2], info)]
            infos = fs.find(path, detail=True)
    files = []
    for full, info in sorted(infos.items()):
        name = full[len(base) :].lstrip("/")
        hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
        if info["type"] == "file" and not hidden and PurePosixPath(name).suffix.lower() in suffixes:
            files.append(_of_info(fs, fs.unstrip_protocol(full), name, info))
    return True, files


def _of_info(fs: Any, place: str, name: str, info: Mapping[str, Any]) -> Found:
    return Found(place, name, info.get("size") or 0, _modified(info), (type(fs).__name__, fs._strip_protocol(place)))


def _modified(info: Mapping[str, Any]) -> float | None:
    """Seconds since 1970, from what a file system says of a file."""
    for key in _TIMES:
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


# ---- reading and writing ---------------------------------------------------------------------------------------------


def read(url: str) -> bytes:
    """A file's bytes. PlaceError where they cannot be had."""
    fs, path = _system(url)
    with _errors(url, "read"):
        data: bytes = fs.cat_file(path)
    return data


def write(url: str, data: bytes, mark: str = "") -> None:
    """A file, whole or not at all, with the folders above it. PlaceError where that cannot be done.

    mark: part of the temporary name, where there is one; what a killed process left of them `sweep` removes.
    """
    here = _path_of(url)
    with _errors(url, "written"):
        if here is not None:
            here.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(here, data, mark)
            return
        fs, path = _system(url)
        if _renames(fs):
            _write_and_move(fs, path, data, mark)
        else:
            fs.pipe_file(path, data)


def _write_and_move(fs: Any, path: str, data: bytes, mark: str) -> None:
    folder = fs._parent(path)
    fs.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/.lichen-{mark}{secrets.token_hex(8)}.part"
    try:
        fs.pipe_file(temporary, data)
        if fs.exists(path):  # over SMB, HDFS and some FTP nothing can be moved over a file
            fs.rm_file(path)
        fs.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(temporary)
        raise


def sweep(urls: Iterable[str], mark: str) -> None:
    """Remove the temporary files of this mark that killed processes left beside these files."""
    for folder in {_folder_of(url) for url in urls}:
        fs, path = _system(folder)
        if not _renames(fs):
            continue
        with contextlib.suppress(Exception):  # there may be no such folder, or it is gone again
            for name in fs.ls(path, detail=False):
                if name.rpartition("/")[2].startswith(f".lichen-{mark}") and name.endswith(".part"):
                    fs.rm_file(name)


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as e:
        raise PlaceError(f"{url} needs fsspec: pip install 'lichen[cluster]'") from e
    try:
        fs, path = url_to_fs(url)
    except ImportError as e:
        raise PlaceError(f"{url} cannot be opened: {str(e).rstrip('.')} (pip install)") from e
    except Exception as e:  # ValueError for an unknown protocol; others for what a store asks for
        raise PlaceError(f"{url} cannot be opened ({reason_of(e)}): check the address") from e
    return fs, path


def _path_of(place: str) -> Path | None:
    """This machine's path, also of a file:// URL; None for what lies elsewhere."""
    if not is_url(place):
        return Path(place)
    fs, path = _system(place)
    from fsspec.implementations.local import LocalFileSystem

    return Path(path) if isinstance(fs, LocalFileSystem) else None


def _renames(fs: Any) -> bool:
    """Whether moving a file is more than the copying and deleting of fsspec's base class."""
    from fsspec.spec import AbstractFileSystem

    return type(fs).mv is not AbstractFileSystem.mv


@contextlib.contextmanager
def _errors(url: str, done: str) -> Iterator[None]:
    """The many exceptions of file systems and their clients, as ours."""
    try:
        yield
    except LichenError:
        raise
    except Exception as e:
        raise PlaceError(f"{url} cannot be {done} ({reason_of(e)}): check the address and the access to it") from e
