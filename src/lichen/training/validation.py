"""Averaged weights on fixed crops of held-out pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lichen.layers.batch_norm import BatchNorm
from lichen.layers.ms_ssim import ms_ssim_error
from lichen.training.config import TrainConfig
from lichen.training.data import Pictures, random_crops
from lichen.training.loss import TrainingLoss, squared_error

CROPS, SIZE, BATCH = 36, 256, 6


@torch.no_grad()
def validate(
    objective: TrainingLoss, pictures: Pictures, config: TrainConfig, done: float
) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
    """Loss, bpp, PSNR and MS-SSIM (dB) on fixed held-out crops, qualities spread evenly; and a few crops, (x, x_hat).

    Crops of 256x256, smaller where pictures are. Bits are those of training's noise; batch normalization is that of
    use.
    """
    device = next(objective.parameters()).device
    smallest = min(min(p.shape[:2]) for p in pictures.held_out)
    size = max(config.crop, min(SIZE, smallest // 64 * 64))
    crops = random_crops(pictures.held_out, CROPS, size, [7])
    objective.train()
    for module in objective.modules():
        if isinstance(module, BatchNorm | nn.modules.batchnorm._BatchNorm):
            module.eval()
    rows, shown = [], []
    torch.manual_seed(0)
    for x, u in zip(crops.split(BATCH), torch.linspace(0, 1, len(crops)).split(BATCH), strict=True):
        quality, lmbda = objective.conditions(u)
        x = x.to(device)
        loss, bpp, x_hat = objective(x, None if quality is None else quality.to(device), lmbda.to(device), done)
        row = {"loss": loss.mean(), "bpp": bpp.mean(), "psnr": (-10 * squared_error(x_hat, x).log10()).mean()}
        if config.objective == "ms-ssim":
            row["ms_ssim"] = (-10 * ms_ssim_error(x, x_hat).log10()).mean()
        rows.append({k: float(v) for k, v in row.items()})
        if len(rows) % 2:
            shown.append((x[:1], x_hat[:1].float()))
    before, after = zip(*shown, strict=True)
    return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}, (torch.cat(before), torch.cat(after))
