import torch
from torch import nn

from lichen.layers.batch_norm import BatchNorm


def test_it_is_batch_norm() -> None:
    """Against torch's over three steps of training, then in eval mode."""
    torch.manual_seed(0)
    ours, torchs = BatchNorm(5, decay=0.9), nn.BatchNorm2d(5, momentum=0.1)
    with torch.no_grad():
        for p, q in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
            p.copy_(torch.randn(5))
            q.copy_(p)
    for _ in range(3):
        x = 3 + 2 * torch.randn(2, 5, 4, 6)
        torch.testing.assert_close(ours(x), torchs(x))
    torch.testing.assert_close(ours.mean.detach(), torchs.running_mean)
    torch.testing.assert_close(ours.var.detach(), torchs.running_var)
    assert float(ours.mean.min()) > 0.5
    ours.eval(), torchs.eval()
    torch.testing.assert_close(ours(x), torchs(x))


def test_a_batch_that_has_blown_up_leaves_no_trace() -> None:
    norm = BatchNorm(3)
    norm(torch.randn(2, 3, 4, 4))
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    for bad in (float("inf"), float("nan"), 1e38):
        x = torch.randn(2, 3, 4, 4)
        x[1, 2, 0, 0] = bad
        norm(x)
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())


def test_its_statistics_are_weights_without_a_gradient() -> None:
    norm = BatchNorm(3)
    assert norm.state_dict().keys() == {"weight", "bias", "mean", "var"}
    assert {n for n, p in norm.named_parameters() if not p.requires_grad} == {"mean", "var"}
    assert all(v.is_floating_point() for v in norm.state_dict().values())


def test_autocast() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm(4))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(2, 3, 8, 8)).float().square().mean().backward()
    assert net[0].weight.grad is not None
    assert bool(torch.isfinite(net[0].weight.grad).all())
    assert net[1].mean.dtype == torch.float32
