"""Where the small models' trainings ended: docs/training-logs -> the table of docs/training.md.

    python scripts/training_table.py

A log is called NAME-PRESET.csv, of a fine-tuning for MS-SSIM NAME-PRESET-ms-ssim.csv, and is the log.csv of a training;
its last line about held-out pictures is shown.
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
    lines = ["| model | preset | steps | loss | bits per pixel | PSNR, dB | MS-SSIM, dB | log |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, entry in REGISTRY.items():
        for preset in entry.presets:
            for objective, suffix in (("", ""), (", for MS-SSIM", "-ms-ssim")):
                log = logs / f"{name}-{preset}{suffix}.csv"
                if preset.startswith("small") and log.exists():
                    lines.append(line(f"{name} | {preset}{objective}", log))
    return "\n".join(lines)


def line(what: str, log: Path) -> str:
    """A row of the table."""
    row = last(log)
    figures = [row["step"], f"{float(row['loss']):.2f}", f"{float(row['bpp']):.3f}", f"{float(row['psnr']):.2f}"]
    figures.append(f"{float(row['ms_ssim']):.2f}" if row.get("ms_ssim") else "")
    return f"| {what} | {' | '.join(figures)} | [csv](training-logs/{log.name}) |"


def last(log: Path) -> dict[str, str]:
    """A log's last line about held-out pictures."""
    with log.open(newline="") as f:
        return [row for row in csv.DictReader(f) if row["split"] == "held-out"][-1]


if __name__ == "__main__":
    raise SystemExit(main())
