import torch

from lichen.layers.blocks import Block


def trained(channels: int = 6) -> Block:
    torch.manual_seed(0)
    block = Block(channels, 3)
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return block


def test_a_new_block_is_the_identity() -> None:
    x = torch.randn(2, 5, 7, 6)
    assert torch.equal(Block(6, 3)(x, torch.eye(3)[:2]), x)


def test_a_block_cannot_blow_up() -> None:
    """Ten times the input gives about ten times the output, not a hundred times: the product of two is bounded."""
    block, level = trained(), torch.eye(3)[:1]
    x = torch.randn(1, 8, 8, 6)
    small, large = ((block(f * x, level) - f * x).abs().max() for f in (1e4, 1e5))
    assert large < 12 * small


def test_the_level_matters_and_is_interpolated() -> None:
    block, x = trained(), torch.randn(1, 4, 4, 6)
    a, b = (block(x, torch.eye(3)[k : k + 1]) for k in (0, 1))
    assert not torch.allclose(a, b)
    together = block(x.expand(2, -1, -1, -1), torch.eye(3)[:2])
    assert torch.allclose(together, torch.cat([a, b]), atol=1e-6)
