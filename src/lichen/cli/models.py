"""`lichen models`: the registry."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from typing import Any

WIDTH = 80


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("models", help="models, presets and weights", description="List the models.")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List each model with its presets."""
    from lichen.models import everything
    from lichen.models.weights import metadata_of, shipped

    ship: dict[tuple[str, str], set[str]] = {}
    for path in shipped().values():
        metadata = metadata_of(path)
        ship.setdefault((metadata["model"], metadata["config"]), set()).add(metadata["objective"])
    for entry in everything().values():
        print(entry.name)
        for text in (entry.summary, entry.citation):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
        column = max(len(name) for name in entry.presets) + 2
        for name, preset in entry.presets.items():
            objectives = ship.get((entry.name, json.dumps(dataclasses.asdict(preset.config))), set())
            too = ", for MS-SSIM too" if "ms-ssim" in objectives else ""
            indent = " " * (4 + column)
            text = preset.summary + (f" (weights ship{too})" if objectives else "")
            text = textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
            print(f"    {name:<{column}}{text.lstrip()}")
    return 0
