import builtins
import sys
from typing import Any

import pytest
import torch

from lichen.errors import LichenError
from lichen.layers.ms_ssim import ms_ssim_error, window_for

pytorch_msssim = pytest.importorskip("pytorch_msssim")


def pictures(size: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12), size=(size, size), mode="bicubic").clamp(0, 1)


def test_windows_are_as_large_as_five_scales_allow() -> None:
    assert [window_for(s) for s in (33, 64, 80, 96, 97, 128, 129, 160, 161, 512)] == [3, 3, 5, 5, 7, 7, 9, 9, 11, 11]
    for side in (33, 64, 97, 128, 160, 161):
        x = torch.rand(1, 1, side, side)
        pytorch_msssim.ms_ssim(x, x, win_size=window_for(side))
        if window_for(side) < 11:
            with pytest.raises(AssertionError):
                pytorch_msssim.ms_ssim(x, x, win_size=window_for(side) + 2)
    with pytest.raises(LichenError, match="larger"):
        window_for(32)


def test_value_and_gradient_are_the_packages() -> None:
    x = pictures(128)
    x_hat = (x + 0.1 * torch.rand_like(x)).requires_grad_()
    weight = torch.tensor([3.0, 0.5])
    (found,) = torch.autograd.grad((weight * ms_ssim_error(x, x_hat)).sum(), x_hat)
    error = 1 - pytorch_msssim.ms_ssim(x_hat, x, data_range=1.0, size_average=False, win_size=7)
    (wanted,) = torch.autograd.grad((weight * error).sum(), x_hat)
    torch.testing.assert_close(ms_ssim_error(x, x_hat), error)
    torch.testing.assert_close(ms_ssim_error(x, x_hat.detach()), error.detach())
    torch.testing.assert_close(found, wanted)


def test_equal_pictures_have_no_error() -> None:
    x = pictures().requires_grad_()
    error = ms_ssim_error(x.detach(), x)
    error.sum().backward()
    assert bool((error.abs() < 1e-5).all())
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_a_negative_is_pulled_out_of_there() -> None:
    x = pictures()
    x_hat = torch.cat([1 - x[:1], x[1:]]).requires_grad_()
    error = ms_ssim_error(x, x_hat)
    error.mean().backward()
    assert abs(error[0].item() - 1) < 0.01
    assert abs(error[1].item()) < 1e-5
    wrong = 1 - 2 * x[0]
    assert x_hat.grad is not None
    torch.testing.assert_close(x_hat.grad[0], 2 * wrong / x.numel())


def test_precision_around_it_does_not_matter() -> None:
    x = pictures()
    x_hat = x + 0.1 * torch.rand_like(x)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ms_ssim_error(x, x_hat)
    assert torch.equal(inside, ms_ssim_error(x, x_hat))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pytorch_msssim":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "pytorch_msssim", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LichenError, match="pip install"):
        ms_ssim_error(pictures(), pictures())
