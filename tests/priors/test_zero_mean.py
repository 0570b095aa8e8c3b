import numpy as np
import torch
from torch import nn

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.coding.exact import freeze
from lichen.priors.zero_mean import ZeroMeanNormal


def prior() -> ZeroMeanNormal:
    made = ZeroMeanNormal(3)
    made.sigma.data = torch.tensor([0.3, -2.0, 20.0])  # signs do not matter
    return made


def test_training_counts_bits_of_normals() -> None:
    torch.manual_seed(0)
    z = torch.randn(2, 40, 50, 3) * torch.tensor([0.3, 2.0, 20.0])
    z.requires_grad_()
    z_hat, bits = prior()(z)
    assert torch.equal(z_hat, z.round())
    assert bits.shape == (2,)
    # A normal's entropy is log2(sigma sqrt(2 pi e)) bits, and the noise adds little where sigma is large.
    wide = prior()
    wide.sigma.data = torch.tensor([20.0, 20.0, 20.0])
    _, bits = wide(torch.randn(1, 100, 100, 3) * 20.0)
    assert abs(float(bits.detach()) / 30000 - np.log2(20.0 * np.sqrt(2 * np.pi * np.e))) < 0.02
    bits.backward()
    assert wide.sigma.grad is not None
    assert bool((wide.sigma.grad != 0).all())


def test_what_is_written_is_read() -> None:
    torch.manual_seed(0)
    frozen = freeze(nn.Sequential(prior()))[0]
    z = torch.randn(2, 6, 7, 3) * torch.tensor([0.3, 2.0, 20.0])
    encoders, meters = [Encoder(), Encoder()], [Meter(), Meter()]
    z_hat = frozen.code(encoders, z, None, (6, 7))
    frozen.code(meters, z, None, (6, 7))
    assert torch.equal(z_hat, z.round().double())
    data = [e.finish() for e in encoders]
    assert torch.equal(frozen.code([Decoder(d) for d in data], None, None, (6, 7)), z_hat)
    for meter, d in zip(meters, data, strict=True):
        assert abs(meter.bits["z"] / 8 - len(d)) < 16
