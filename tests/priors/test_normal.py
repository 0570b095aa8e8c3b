from dataclasses import dataclass

import torch
from torch import Tensor

from lichen.coding import exact
from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.priors.normal import NormalPrior


@dataclass
class Level:
    z_g: Tensor
    z_log_g: Tensor


def prior_and_latents() -> tuple[NormalPrior, Tensor]:
    torch.manual_seed(0)
    prior = NormalPrior(5)
    with torch.no_grad():
        prior.mean.normal_()
        prior.log_std.uniform_(0, 2)
    z = prior.mean + prior.log_std.exp() * torch.randn(2, 6, 7, 5)
    return prior, z.detach()


def level(gain: float) -> Level:
    g = torch.full((1, 1, 1, 5), gain)
    return Level(g.double(), g.double().log())


def test_estimate_file_and_latents_agree_at_every_gain() -> None:
    prior, z = prior_and_latents()
    frozen = exact.freeze(torch.nn.Sequential(prior))[0]
    for gain in (0.5, 1.0, 4.0):
        z_hat, bits = prior(z * gain, Level(*(t.float() for t in vars(level(gain)).values())))
        encoders, meters = [Encoder(), Encoder()], [Meter(), Meter()]
        written = frozen.code(encoders, z * gain, level(gain), (6, 7))
        frozen.code(meters, z * gain, level(gain), (6, 7))
        read = frozen.code([Decoder(e.finish()) for e in encoders], None, level(gain), (6, 7))
        assert torch.equal(read, written)
        assert torch.allclose(written.float(), z_hat, atol=1e-2)
        assert float((written - z * gain).abs().max()) < 0.501
        exact_bits = torch.tensor([m.bits["z"] for m in meters])
        assert torch.allclose(exact_bits, bits.detach(), rtol=0.15)  # noise in place of rounding


def test_more_gain_costs_more_bits() -> None:
    prior, z = prior_and_latents()
    few, many = (
        float(prior(z * g, Level(torch.tensor(g), torch.tensor(g).log()))[1].sum().detach()) for g in (0.5, 4.0)
    )
    # three halvings of the step for each latent
    assert abs((many - few) / z.numel() - 3) < 0.5
