import pytest
import torch

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.errors import WeightsError
from lichen.priors.symbols import SymbolPrior


def make() -> SymbolPrior:
    torch.manual_seed(0)
    prior = SymbolPrior(5, 6, 7)
    with torch.no_grad():
        for p in prior.network.parameters():
            p.mul_(2)
    return prior


def latents() -> torch.Tensor:
    return 1.5 * torch.randn(2, 6, 7, 5, generator=torch.Generator().manual_seed(1))


def test_encoder_decoder_meter_and_training_agree() -> None:
    prior, y = make(), latents()
    with torch.no_grad():
        trained, estimate = prior(y)
    frozen = prior.frozen()
    encoders, meters = [Encoder(), Encoder()], [Meter(), Meter()]
    y_hat = frozen.code(encoders, {"y": y}, None, (6, 7))
    assert y_hat.dtype == torch.float64
    torch.testing.assert_close(y_hat.float(), trained, rtol=0, atol=1e-4)
    assert torch.equal(frozen.code(meters, {"y": y}, None, (6, 7)), y_hat)
    streams = [e.finish() for e in encoders]
    decoders = [Decoder(s) for s in streams]
    assert torch.equal(frozen.code(decoders, None, None, (6, 7)), y_hat)
    for b, decoder in enumerate(decoders):
        decoder.finish()
        bits = meters[b].bits["y"]
        assert abs(bits / float(estimate["y"][b]) - 1) < 1e-3  # what exact arithmetic costs
        assert abs(bits / 8 - len(streams[b])) < 0.005 * bits / 8 + 8


def test_bits_teach_the_network_and_nothing_else() -> None:
    prior, y = make(), latents().requires_grad_()
    y_hat, bits = prior(y)
    bits["y"].sum().backward()
    assert y.grad is None
    assert prior.quantization.centres.grad is None
    assert all(p.grad is not None and bool(p.grad.any()) for p in prior.network.parameters())
    y_hat.sum().backward()
    assert y.grad is not None
    assert bool(y.grad.all())


def test_bits_are_the_cross_entropy_of_each_symbol() -> None:
    prior, y = make(), latents()
    with torch.no_grad():
        y_hat, symbols = prior.quantization(y)
        bits = prior.bits(y_hat, symbols)
        p = prior.network(y_hat, prior.quantization.centres[0]).softmax(-1)
    assert bits.shape == y.shape
    torch.testing.assert_close(2**-bits, p.gather(-1, symbols[..., None])[..., 0])


def test_what_is_outside_is_the_first_centre() -> None:
    """A larger volume filled up with that centre has the same logits inside."""
    prior, y = make(), latents()
    with torch.no_grad():
        q, c = prior.quantization(y)[0], prior.quantization.centres[0]
        larger = c.expand(2, 14, 15, 9).clone()
        larger[:, 4:-4, 4:-4, 4:] = q
        assert torch.allclose(prior.network(larger, c)[:, 4:-4, 4:-4, 4:], prior.network(q, c), atol=1e-5)


def test_latents_that_are_no_numbers() -> None:
    y = latents()
    y[0, 0, 0, 0] = torch.nan
    with pytest.raises(WeightsError, match="broken"):
        make().frozen().code([Meter(), Meter()], {"y": y}, None, (6, 7))
