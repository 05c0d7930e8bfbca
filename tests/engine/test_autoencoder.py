"""Patches, corruption and penalties of autoencoders."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.functional import jacobian

from warmstart.engine import autoencoder, bodies


def test_patches_are_put_together_again() -> None:
    images = torch.randn(2, 3, 8, 12)
    cut = autoencoder.patches(images, 4)
    assert cut.shape == (2, 6, 48)
    assert torch.equal(cut[0, 1].view(4, 4, 3), images[0, :, :4, 4:8].permute(1, 2, 0))
    assert torch.equal(autoencoder.unpatch(cut, 3, 8, 12), images)
    normal = autoencoder.normalised(cut)
    assert torch.allclose(normal.mean(2), torch.zeros(2, 6), atol=1e-5)
    assert torch.allclose(normal.std(2), torch.ones(2, 6), atol=1e-4)


def test_corruption() -> None:
    x = torch.full((50, 3, 20, 20), 0.4)
    generator = torch.Generator().manual_seed(0)
    masked = autoencoder.corrupted(x, "masking", 0.3, generator)
    assert float((masked == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(masked[:, 0] == 0, masked[:, 2] == 0)
    salted = autoencoder.corrupted(x, "salt", 0.3, generator)
    assert float((salted == 1).float().mean()) == pytest.approx(0.15, abs=0.02)
    assert float((salted == 0).float().mean()) == pytest.approx(0.15, abs=0.02)
    noisy = autoencoder.corrupted(x, "gaussian", 0.3, generator)
    assert float((noisy - x).std()) == pytest.approx(0.3, abs=0.01)


def test_sparsity_is_zero_at_its_target_and_grows_away_from_it() -> None:
    def at(activity: float) -> float:
        return float(autoencoder.sparsity(torch.full((4, 3), activity), 0.1))

    assert at(0.1) == pytest.approx(0.0, abs=1e-6)
    assert at(0.5) == pytest.approx(3 * (0.1 * torch.tensor(0.2).log() + 0.9 * torch.tensor(1.8).log()).item(), abs=1e-5)
    assert at(0.9) > at(0.5) > 0


def test_contraction_is_the_squared_jacobian() -> None:
    torch.manual_seed(0)
    layer = bodies.Layer(7, 4, "sigmoid")
    x = torch.randn(3, 7)
    exact = autoencoder.contraction(layer(x), layer.linear.weight)
    for i in range(3):
        assert float(exact[i].detach()) == pytest.approx(float(jacobian(layer, x[i]).detach().square().sum()), rel=1e-4)  # type: ignore[no-untyped-call]
    many = x[:1].repeat(20_000, 1).requires_grad_(True)
    estimated = autoencoder.estimated_contraction(layer(many), many, torch.randn(20_000, 4))
    assert float(estimated.mean().detach()) == pytest.approx(float(exact[0].detach()), rel=0.05)
    estimated.mean().backward()  # type: ignore[no-untyped-call]
    assert layer.linear.weight.grad is not None
    wanted = torch.autograd.grad(autoencoder.contraction(layer(x[:1]), layer.linear.weight).sum(), layer.linear.weight)[0]
    assert torch.allclose(layer.linear.weight.grad, wanted, atol=0.05)


def test_a_convolutional_decoder_gives_the_size_that_went_in() -> None:
    for size in ((28, 28), (13, 9)):
        config = {"model_type": "warmstart-convnet", "widths": [4, 8, 6], "channels": 2}
        whole = autoencoder.Autoencoder(bodies.build(config), autoencoder.ConvDecoder(2, [4, 8, 6], size))
        out, code = whole(torch.randn(2, 2, *size))
        assert out.shape == (2, 2, *size)
        assert code.shape == (2, 6, size[0] >> 3, size[1] >> 3)
