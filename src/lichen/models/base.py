"""What every codec of this package can do, in terms of three things that its file defines.

analyse(x, quality) -> y         the analysis transform, pixels to latents
synthesise(y_hat, quality)       the synthesis transform, back to pixels
prior                            the probability of y: `forward` trains, `frozen().code` writes and reads
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lichen.coding.coder import Coder, Meter
from lichen.layers.gain import lmbda_between
from lichen.priors.conditional import Latents

T = TypeVar("T")

PAPERS: Mapping[str, Any] = {
    "schedule": "constant",
    "warmup": 0,
    "betas": (0.9, 0.999),
    "places": 1,
    "hard_every": 0,
}
"""What the papers' recipes have in common: Adam as it comes at a constant rate, crops from anywhere, as they are."""


@dataclass(frozen=True)
class Preset:
    """A configuration worth a name."""

    config: Any  # a model's frozen dataclass of hyper-parameters
    summary: str  # one line
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """How its paper trained it, as far as it says: fields of the trainer's configuration (lmbda, lr, batch, ...)."""


class Model(nn.Module):
    """A codec: pixels (B, 3, H, W) in 0..1 <-> latents (B, H/stride, W/stride, M), rounded up, channels last."""

    stride = 16  # pixels a latent, to each side
    reach = 2  # latents to each side that the transforms see: `y` of a piece of a picture needs a margin of so many
    any_size = False  # whether `analyse` takes pictures of any size, others being padded to multiples of `stride`
    variable_rate = False  # whether one set of weights serves qualities 1 to 100
    name = ""  # in the registry
    objective = "mse"  # what its weights were trained for: mse, ms-ssim; of no meaning where there is an `own_loss`
    cfg: Any  # the frozen dataclass of its hyper-parameters
    prior: Any
    own_loss: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
    """Where a paper minimises something else than rate and distortion: (x, quality, lmbda, done) -> the loss (), bits
    per pixel (B,), x_hat (B, 3, H, W). lmbda is (B,), `done` in 0..1 how far the training is."""
    staged: Callable[..., tuple[Tensor, dict[str, Tensor], Tensor]] | None = None
    """Where a paper trains for rate and distortion in stages: (x, quality, done) -> x_hat and bits as `forward` gives
    them at that stage, and what helps it (B,), which counts as bits per pixel do."""
    training_only: tuple[str, ...] = ()
    """How names of the state dict begin that `own_loss` or `staged` alone need: files of weights do without them."""

    def __init__(self) -> None:
        super().__init__()
        self._of_weights: dict[str, tuple[Any, Any, list[Tensor]]] = {}

    def analyse(self, x: Tensor, quality: Tensor | None) -> Tensor:
        """x: (B, 3, H, W) in 0..1, H and W multiples of `stride` or anything where `any_size`; quality: (B,), or None
        where there is one alone."""
        raise NotImplementedError

    def synthesise(self, y_hat: Tensor, quality: Tensor | None) -> Tensor:
        """The way back, in float32; values outside 0..1 are possible."""
        raise NotImplementedError

    def synthesise_to(self, y_hat: Tensor, quality: Tensor | None, size: tuple[int, int]) -> Tensor:
        """`synthesise` for a picture of `size` (H, W): x_hat (B, 3, H, W)."""
        return self.synthesise(y_hat, quality)[..., : size[0], : size[1]]

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """What lmbda a quality (B,) stands for; models of variable rate alone."""
        raise NotImplementedError

    def layers(self, quality: Tensor | None) -> int:
        """How many layers a file of this quality (1,) has; 0 where a file is of use as a whole alone."""
        return 0

    def quality_of(self, layers: int) -> Tensor:
        """The quality (1,) whose files have so many layers; models that have some alone."""
        raise NotImplementedError

    def start_from(self, crops: Tensor) -> None:
        """Set the weights from training crops (B, 3, 64, 64) in 0..1 before the first step, where a model can."""

    def forward(self, x: Tensor, quality: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """x_hat and the bits {"y": (B,), ...} that latents cost.

        Training: differentiable, with noise for rounding where the prior says so. In eval mode: x_hat is what a decoder
        makes of the file, and bits what its coder needs.
        """
        y = self.analyse(x, quality)
        if self.training:
            y_hat, bits = self.prior(y, self.prior.condition(quality))
        else:
            y_hat, bits = self._measure(y, quality)
        return self.synthesise_to(y_hat, quality, (x.shape[2], x.shape[3])), bits

    @torch.no_grad()
    def _measure(self, y: Tensor, quality: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        y_hat, rows = [], []
        for b in range(len(y)):
            meter = Meter()
            y_hat.append(self.code([meter], y[b : b + 1], None if quality is None else quality[b : b + 1]))
            rows.append(meter.bits)
        bits = {part: torch.tensor([row[part] for row in rows], device=y.device) for part in rows[0]}
        return torch.cat(y_hat), bits

    @torch.no_grad()
    def code(
        self,
        coders: Sequence[Coder],
        y: Tensor | Latents | None,
        quality: Tensor | None,
        shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """Code latents y (B, h, w, M), or read latents of the shape (h, w) where y is None, one coder a picture.

        y may come as {"y": y, ...} with the hyper-latents to be coded with it, else they are what `prior.hyper` makes
        of y. quality: (1,), the same for all. Returns y_hat in float32, equal in encoder and decoder.
        """
        prior = self.frozen_prior()
        level = prior.condition(quality)
        latents = y if y is None or isinstance(y, Mapping) else {"y": y, **self.prior.hyper(y, level)}
        if latents is not None:
            shape = (latents["y"].shape[1], latents["y"].shape[2])
        y_hat: Tensor = prior.code(coders, latents, level, shape)
        return y_hat.float()

    def frozen_prior(self) -> Any:
        """The prior in exact arithmetic."""
        return self.of_weights("frozen prior", self.prior.frozen)

    def of_weights(self, what: str, make: Callable[[], T]) -> T:
        """What follows from the weights: made at first use, and anew when they have changed, in place or for others.

        Torch does not count what is changed in place through a parameter's `data`; that alone is not seen.
        """
        weights = list(self.state_dict().values())
        now = [(v.data_ptr(), 0 if v.is_inference() else v._version, v.dtype) for v in weights]
        if what not in self._of_weights or self._of_weights[what][0] != now:
            self._of_weights[what] = now, make(), weights  # held, so that no others come to lie where they do
        found: T = self._of_weights[what][1]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: without what follows from the weights, which they make anew."""
        return {**self.__dict__, "_of_weights": {}}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; where parts for training alone are missing, those of this model stay."""
        own = {k: v for k, v in self.state_dict().items() if k.startswith(self.training_only)}
        return super().load_state_dict({**own, **state_dict} if own else state_dict, strict, assign)


class PlainModel(Model):
    """A codec whose transforms are networks of (B, C, H, W), with gains on the latents where there are levels.

    `prior.condition(quality)` gives gain and inverse gain (B, 1, 1, M) first of all; `cfg` has levels, lmbda_min and
    lmbda_max (see `layers/gain.py`).
    """

    g_a: nn.Module
    g_s: nn.Module

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """y = gain g_a(x): (B, 3, H, W) -> (B, H/stride, W/stride, M)."""
        y: Tensor = self.g_a(x).permute(0, 2, 3, 1).to(x.dtype)
        return y * self.prior.condition(quality)[0] if self.variable_rate else y

    def synthesise(self, y_hat: Tensor, quality: Tensor | None = None) -> Tensor:
        """x_hat = g_s(y_hat inverse gain): (B, H/stride, W/stride, M) -> (B, 3, H, W)."""
        u = y_hat * self.prior.condition(quality)[1] if self.variable_rate else y_hat
        x_hat: Tensor = self.g_s(u.permute(0, 3, 1, 2))
        return x_hat.to(y_hat.dtype)

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """Quality -> lmbda, even in the logarithm."""
        return lmbda_between(quality, self.cfg.lmbda_min, self.cfg.lmbda_max)
