"""Where the small models' trainings ended: docs/training-logs -> the table of docs/training.md.

    python scripts/training_table.py

A log is called NAME-PRESET.csv and is the log.csv of a training; its last line about held-out pictures is shown.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pages

from lichen.models import REGISTRY

DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--write", type=Path, default=DOCS / "training.md", metavar="FILE", help="the page")
    args = p.parse_args()
    text = table(DOCS / "training-logs")
    print(text)
    pages.write(args.write, "small", text, "training_table.py")
    return 0


def table(logs: Path) -> str:
    """Of all presets that begin with small and have a log, in the registry's order."""
    lines = ["| model | preset | steps | loss | bits per pixel | PSNR, dB | log |", "|---|---|---|---|---|---|---|"]
    for name, entry in REGISTRY.items():
        for preset in entry.presets:
            log = logs / f"{name}-{preset}.csv"
            if preset.startswith("small") and log.exists():
                row = last(log)
                figures = (
                    f"{row['step']} | {float(row['loss']):.2f} | {float(row['bpp']):.3f} | {float(row['psnr']):.2f}"
                )
                lines.append(f"| {name} | {preset} | {figures} | [csv](training-logs/{log.name}) |")
    return "\n".join(lines)


def last(log: Path) -> dict[str, str]:
    """A log's last line about held-out pictures."""
    with log.open(newline="") as f:
        return [row for row in csv.DictReader(f) if row["split"] == "held-out"][-1]


if __name__ == "__main__":
    raise SystemExit(main())
