import math

import pytest
import torch
from tiny import CONFIGS

from lichen.errors import LichenError
from lichen.layers.ms_ssim import ms_ssim_error, ms_ssim_lmbda, mse_lmbda
from lichen.models import build, find
from lichen.models.base import Model
from lichen.training import loss
from lichen.training.loss import TrainingLoss


def test_rate_distortion_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 0.02), torch.full((3, 4, 4), 0.04)])
    bits = {"y": torch.tensor([16.0, 32.0]), "z": torch.tensor([0.0, 16.0])}
    bpp, mse = loss.bits_per_pixel(bits, x), loss.squared_error(x_hat, x)
    assert torch.allclose(bpp, torch.tensor([1.0, 3.0]))
    assert torch.allclose(mse, torch.tensor([0.0004, 0.0016]))
    lmbda = torch.tensor([0.01, 0.04])
    by_hand = [(0.01 * 65025 * 0.0004 + 1) / 0.1, (0.04 * 65025 * 0.0016 + 3) / 0.2]
    assert float(loss.rate_distortion(bpp, mse, lmbda)) == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_ms_ssim_lmbdas_are_the_published_ones() -> None:
    mse = torch.tensor([0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800])
    published = torch.tensor([2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00])
    mapped = ms_ssim_lmbda(mse)
    assert torch.allclose(mapped[[0, -1]], published[[0, -1]], rtol=1e-5)
    assert torch.allclose(mapped, published, rtol=0.02)
    assert torch.allclose(mse_lmbda(mapped), mse, rtol=1e-5)
    assert loss.DEFAULT_LMBDA["mse"] == pytest.approx(float(mse[3]))
    assert loss.DEFAULT_LMBDA["ms-ssim"] == pytest.approx(float(published[3]))


def test_ms_ssim_loss_by_hand() -> None:
    bpp, error, lmbda = torch.tensor([0.5, 0.2]), torch.tensor([0.04, 0.01]), torch.tensor([2.40, 220.0])
    by_hand = [(2.40 * 0.04 + 0.5) / math.sqrt(0.0018), (220 * 0.01 + 0.2) / math.sqrt(0.18)]
    assert float(loss.rate_ms_ssim(bpp, error, lmbda)) == pytest.approx(sum(by_hand) / 2, rel=1e-4)


def test_one_crop_cannot_undo_the_rest() -> None:
    losses = torch.tensor([10.0, 600.0], requires_grad=True)
    mean = loss.limited_mean(losses)
    mean.backward()
    assert mean.item() == pytest.approx((10 + 600) / 2)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0.5, 0.05])


def make(name: str = "light") -> Model:
    torch.manual_seed(0)
    return build(find(name), CONFIGS[name])


def test_a_rate_weighs_alike_in_both_objectives() -> None:
    u = torch.linspace(0, 1, 5)
    net = make()
    quality, mse = TrainingLoss(net, "mse", 0.013).conditions(u)
    same, ms_ssim = TrainingLoss(net, "ms-ssim", 16.64).conditions(u)
    assert quality is not None and same is not None
    assert torch.equal(quality, same)
    assert torch.allclose(quality, 1 + 99 * u)
    assert torch.equal(mse, net.lmbda_of(quality))
    assert torch.allclose(mse_lmbda(ms_ssim), mse, rtol=1e-4)


def test_models_of_one_quality_take_the_lmbda_that_is_given() -> None:
    for objective, lmbda in (("mse", 0.05), ("ms-ssim", 60.5)):
        quality, given = TrainingLoss(make("minnen2018-scale"), objective, lmbda).conditions(torch.rand(3))
        assert quality is None
        assert torch.allclose(given, torch.full((3,), lmbda))


def test_the_loss_of_a_model_is_that_of_its_forward() -> None:
    net, x = make().train(), torch.rand(2, 3, 64, 64)
    objective = TrainingLoss(net, "mse", 0.013)
    quality, lmbda = objective.conditions(torch.tensor([0.2, 0.8]))
    torch.manual_seed(1)
    value, bpp, x_hat = objective(x, quality, lmbda, 0.0)
    torch.manual_seed(1)
    expected, bits = net(x, quality)
    assert torch.equal(x_hat, expected)
    assert torch.equal(bpp, loss.bits_per_pixel(bits, x))
    assert torch.equal(value, loss.rate_distortion(bpp, loss.squared_error(x_hat, x), lmbda))


def test_a_loss_of_its_own_goes_first() -> None:
    net = make()
    seen = []

    def own_loss(*given: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen.append(given)
        return torch.tensor(1.0), torch.ones(2), torch.zeros(2, 3, 64, 64)

    net.own_loss = own_loss
    x, lmbda = torch.rand(2, 3, 64, 64), torch.tensor([0.1, 0.2])
    value, bpp, _ = TrainingLoss(net, "mse", 0.013)(x, None, lmbda, 0.25)
    assert (float(value), bpp.tolist()) == (1.0, [1.0, 1.0])
    assert seen[0][0] is x
    assert seen[0][2:] == (lmbda, 0.25)


def test_the_objective_is_ms_ssim_where_asked() -> None:
    net = make().train()
    x = torch.nn.functional.interpolate(torch.rand(2, 3, 24, 24), size=192, mode="bilinear")
    objective = TrainingLoss(net, "ms-ssim", 16.64)
    quality, lmbda = objective.conditions(torch.tensor([0.2, 0.8]))
    with torch.autocast("cpu", torch.bfloat16):
        value, bpp, x_hat = objective(x, quality, lmbda, 0.0)
    expected = loss.rate_ms_ssim(bpp, ms_ssim_error(x, x_hat), lmbda)
    assert torch.equal(value, expected)
    assert value.dtype == x_hat.dtype == torch.float32


def test_ms_ssim_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LichenError, match=r"needs the package pytorch-msssim: pip install 'lichen\[train\]'"):
        TrainingLoss(make(), "ms-ssim", 16.64)


def test_stages_and_what_helps_them() -> None:
    net = make().train()
    x, lmbda = torch.rand(2, 3, 64, 64), torch.tensor([0.1, 0.2])
    quality = torch.tensor([20.0, 80.0])
    seen = []

    def staged(*given: object) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        seen.append(given[2])
        return (*net(x, quality), torch.tensor([0.5, 1.0]))

    torch.manual_seed(1)
    plain = TrainingLoss(net, "mse", 0.013)(x, quality, lmbda, 0.0)[0]
    net.staged = staged
    torch.manual_seed(1)
    helped = TrainingLoss(net, "mse", 0.013)(x, quality, lmbda, 0.25)[0]
    assert seen == [0.25]
    expected = (torch.tensor([0.5, 1.0]) / lmbda.sqrt()).mean()
    torch.testing.assert_close(helped - plain, expected, rtol=1e-3, atol=0)
