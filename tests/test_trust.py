"""What reading a file must never do: write elsewhere, follow a path, start or load anything that the file names.

Python tells of every file, process and connection that it opens, and of every class that a pickle asks for
(`sys.addaudithook`, PEP 578); libraries written in other languages are not heard.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import lichen
from lichen import codec
from lichen.container import Container, Header

Photo = npt.NDArray[np.uint8]

SOURCE = Path(lichen.__file__).parent
SECRET = "/etc/passwd ../../../etc/passwd file:///etc/passwd http://localhost:9/ C:\\Windows\\win.ini"

LISTEN = """
import json, os, sys

heard = []
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
GROUPS = {"os", "shutil", "subprocess", "socket", "pickle", "urllib", "tempfile", "webbrowser"}
QUIET = {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv"}

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = set(mode or "") & set("wax+") or (flags or 0) & WRITE
        if type(path) is not int:
            heard.append(["write" if writes else "read", os.path.abspath(os.fsdecode(path))])
    elif event.split(".")[0] in GROUPS and event not in QUIET:
        heard.append([event, str(arguments)])

sys.addaudithook(hook)
"""

Heard = list[tuple[str, str]]


def listened(code: str, *arguments: str | Path) -> Heard:
    """What Python tells of while it runs the code: ("read" or "write", path), or an event and its arguments."""
    script = f"{LISTEN}\n{code}\nprint(json.dumps(heard))"
    command = [sys.executable, "-B", "-c", script, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(what, path) for what, path in json.loads(run.stdout.splitlines()[-1])]


def elsewhere(path: str) -> bool:
    """Whether it is no file of Python's, its packages', or the system's description of the machine."""
    homes = {
        sys.prefix,
        sys.base_prefix,
        SOURCE,
        SOURCE.parent,
        "/proc",
        "/sys",
        "/dev",
        Path(np.__file__).parent.parent,
    }
    return bool(path) and not any(Path(path).is_relative_to(Path(home).resolve()) for home in homes)


@pytest.fixture
def file(photo: Photo, tmp_path: Path) -> Path:
    """With alpha, and with metadata full of paths."""
    image = Image.fromarray(np.dstack([photo[:64, :80], photo[:64, :80, 0]]))
    exif = Image.Exif()
    exif[0x010E] = exif[0x8298] = SECRET
    image.info = {"exif": exif.tobytes(), "xmp": f'<x href="{SECRET}"/>'.encode()}
    path = tmp_path / "a.lichen"
    path.write_bytes(lichen.encode(image))
    return path


def test_the_listener_hears() -> None:
    found = listened(
        "import pickle, subprocess\n"
        "pickle.loads(b'cos\\nsystem\\n.')\n"
        "open('/dev/null', 'wb').close(); os.open('/dev/null', os.O_RDWR)\n"
        "subprocess.run(['true'])"
    )
    assert [event for event, what in found if what == "/dev/null"][:2] == ["write", "write"]
    assert {"pickle.find_class", "subprocess.Popen"} <= {event for event, _ in found}


def test_reading_data_touches_no_file_and_runs_nothing(file: Path, tmp_path: Path) -> None:
    """The picture of a file, files that name models and weights by paths, and pickles in place of weights."""
    names = ["../../../../../../etc/passwd", "/etc/passwd", "os", "light"]
    for n, name in enumerate(names):
        for weights in (b"/etc/pas", codec.identity_of(lichen.load())):
            data = Container(Header(name, weights, 75 * 256, 16, 16), [b""]).to_bytes()
            (tmp_path / f"{weights.hex()}-{n}.lichen").write_bytes(data)
    for name in ("weights.pt", "weights.safetensors"):
        torch.save({"a": torch.zeros(3)}, tmp_path / name)
    found = listened(
        "import io, pathlib, lichen, lichen.codec, lichen.pillow; from PIL import Image\n"
        "folder = pathlib.Path(sys.argv[1]); refused = 0\n"
        "data = {path.name: path.read_bytes() for path in folder.glob('*.lichen')}\n"
        "heard.clear()\n"
        "picture = lichen.decode(data['a.lichen']); picture.load()\n"
        "assert picture.getexif()[0x010E].startswith('/etc')\n"
        "for each in data.values():\n"
        "    lichen.codec.describe(each); Image.open(io.BytesIO(each)).info\n"
        "    try: lichen.decode(each)\n"
        "    except lichen.LichenError: refused += 1\n"
        "for path in folder.glob('weights.*'):\n"
        "    try: lichen.load(weights=path)\n"
        "    except lichen.LichenError: refused += 1\n"
        "assert refused == 10, refused",
        tmp_path,
    )
    assert [(event, what) for event, what in found if event != "read"] == []
    assert [what for _, what in found if elsewhere(what)] == []


def test_decoding_writes_the_target_and_nothing_else(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.png"
    found = listened(
        "from lichen.cli import main\nassert main(['decode', sys.argv[1], '-o', sys.argv[2]]) == 0", file, target
    )
    written = [what for event, what in found if event == "write" and elsewhere(what)]
    assert written
    assert {Path(what).parent for what in written} == {target.parent}
    assert [what for event, what in found if event == "read" and elsewhere(what)] == [str(file)]
    assert {event for event, _ in found} == {"read", "write", "os.mkdir", "os.rename"}
    assert [p.name for p in target.parent.iterdir()] == ["a.png"]


def calls(tree: ast.AST) -> list[tuple[str, dict[str, Any]]]:
    """Names of what is called, and the keyword arguments that are constants."""
    return [
        (
            ast.unparse(node.func),
            {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)},
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_no_code_comes_from_data() -> None:
    loads = 0
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, options in calls(tree):
            assert name not in ("eval", "exec", "compile", "__import__"), path
            if name == "torch.load":
                loads += 1
                assert options.get("weights_only") is True, path
            assert options.get("allow_pickle") is not True, path
        imported = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        imported |= {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}, path
    assert loads  # the search finds what it looks for
