"""`lichen models`: the registry."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("models", help="models, presets and weights", description="List the models.")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List each model with its presets."""
    from lichen.models import REGISTRY
    from lichen.models.weights import metadata_of, shipped

    with_weights = {metadata_of(p)["model"] for p in shipped().values()}
    for entry in REGISTRY.values():
        print(f"{entry.name}{'  (weights ship)' if entry.name in with_weights else ''}")
        print(f"    {entry.summary}")
        print(f"    {entry.citation}")
        for name, preset in entry.presets.items():
            print(f"    {name:<12} {preset.summary}")
    return 0
