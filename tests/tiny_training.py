"""The trainer with presets `tiny` of some models: for tests that start processes.

python tests/tiny_training.py OUT DATA CACHE STEPS [FIELD=JSON ...]
"""

import json
import sys
from pathlib import Path
from typing import Any

from lichen.models import REGISTRY, hu2020, light, minnen2018
from lichen.models.base import Preset
from lichen.training.config import TrainConfig, new_config

TINY = {
    "light": Preset(light.Config(c1=8, c2=16, M=12, N=4, n1=1, n2=1, h=8, e=16, levels=3), "starts from data"),
    "minnen2018-mean-scale": Preset(minnen2018.Config("mean-scale", N=8, M=12, levels=3), "starts at random"),
    "hu2020": Preset(hu2020.Config(N=8, M=12, E=8, C2=8, K=8, C1=4), "trains in stages"),
}


def config(out: str, data: str, cache: str, steps: int, **fields: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "preset": "tiny",
        "batch": 4,
        "crop": 64,
        "start_crops": 200,
        "lr": 5e-3,
        "precision": "32-true",
    }
    return new_config({"data": [data], "out": out, "cache": cache, "steps": steps, **settings, **fields})


def main() -> None:
    from lichen.training.loop import train

    for model, preset in TINY.items():
        REGISTRY[model].presets["tiny"] = preset  # type: ignore[index]
    out, data, cache, steps = sys.argv[1:5]
    fields = dict(pair.split("=", 1) for pair in sys.argv[5:])
    train(config(out, data, cache, int(steps), **{k: json.loads(v) for k, v in fields.items()}))
    # Threads of gloo that outlive a training may abort its process.
    alive = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in alive), alive


if __name__ == "__main__":
    main()
