"""Latent quantisation: brute force, where gradients go, and a block that trains with a recipe and stays at export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tikhon
from tikhon import LatentQuantizer, TikhonError
from tikhon.blocks.structure.latent_quant import nearest, quantization_errors, quantized, straight_through


def sample(latents: int = 5, values: int = 4):
    generator = torch.Generator().manual_seed(0)
    z = 0.5 * torch.randn(7, 2, latents, generator=generator, dtype=torch.float64)
    return z, torch.randn(latents, values, generator=generator, dtype=torch.float64)


def test_every_latent_takes_the_nearest_of_its_own_values() -> None:
    z, values = sample()
    found, q = nearest(z, values), quantized(z, values)
    for place in torch.cartesian_prod(torch.arange(7), torch.arange(2), torch.arange(5)).tolist():
        own = values[place[-1]].tolist()
        best = min(range(4), key=lambda v, own=own, place=place: abs(own[v] - z[tuple(place)].item()))
        assert found[tuple(place)] == best
        assert q[tuple(place)] == own[best]


def test_of_equally_near_values_the_first() -> None:
    assert nearest(torch.zeros(1), torch.tensor([[-1.0, 1.0, -1.0]])) == 0


def test_gradients_go_straight_to_latents_and_never_to_values() -> None:
    z, values = (one.requires_grad_() for one in sample())
    weight = torch.randn_like(z)
    (weight * straight_through(z, values)).sum().backward()
    assert torch.equal(z.grad, weight)
    assert values.grad is None


def test_each_half_of_the_penalty_moves_its_own_side() -> None:
    z, values = (one.requires_grad_() for one in sample())
    distance = (z - quantized(z, values)).detach()
    torch.testing.assert_close(quantization_errors(z, values, 2.0, 3.0).detach(), 5.0 * distance.square().mean(-1))
    of_z, of_values = torch.autograd.grad(quantization_errors(z, values, 2.0, 3.0).sum(), (z, values))
    torch.testing.assert_close(of_z, 3.0 * 2.0 * distance / 5)
    expected = torch.zeros_like(values)
    expected.T.scatter_add_(0, nearest(z, values).reshape(-1, 5), (-2.0 * 2.0 * distance / 5).detach().reshape(-1, 5))
    torch.testing.assert_close(of_values, expected)


def test_the_block_begins_with_even_values_and_gives_code_and_value_alike() -> None:
    block = LatentQuantizer(latents=3, values=5)
    torch.testing.assert_close(block.values[1], torch.tensor([-0.5, -0.25, 0.0, 0.25, 0.5]))
    z = torch.tensor([[0.9, -0.1, 0.2]])
    assert torch.equal(block.indices(z), torch.tensor([[4, 2, 3]]))
    torch.testing.assert_close(block(z), torch.tensor([[0.5, 0.0, 0.25]]))
    assert block.penalty(z).shape == (1,)


class AutoEncoder(nn.Module):
    """Gives the reconstruction and, beside it, the latents as the encoder gave them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = nn.Linear(6, 3), LatentQuantizer(3, values=4), nn.Linear(3, 6)

    def forward(self, x):
        z = self.encoder(x)
        return torch.cat([self.decoder(self.quantizer(z)), z], dim=1)


def test_it_trains_with_a_recipe_and_is_the_owners_at_export() -> None:
    torch.manual_seed(0)
    model, x = AutoEncoder(), torch.randn(64, 6)

    def loss(output, x):
        return (output[:, :6] - x).square().mean(1) + model.quantizer.penalty(output[:, 6:])

    trained, history = tikhon.fit(
        model,
        tikhon.Recipe(tikhon.L2(1e-3), base=loss),
        (x, x),
        epochs=30,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )
    assert history.train_loss[-1] < 0.9 * history.train_loss[0]
    assert not torch.equal(trained.quantizer.values.detach(), LatentQuantizer(3, values=4).values.detach())
    code = trained.quantizer(trained.encoder(x))
    assert all(len(column.unique()) <= 4 for column in code.detach().round(decimals=5).T)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"latents": 0}, "latents"),
        ({"latents": True}, "latents"),
        ({"latents": 2, "values": 1}, "values"),
        ({"latents": 2, "commit": -1.0}, "commit"),
    ],
)
def test_wrong_arguments(arguments, says) -> None:
    with pytest.raises(TikhonError, match=says):
        LatentQuantizer(**arguments)


@pytest.mark.parametrize("use", ["forward", "penalty", "indices"])
def test_latents_that_do_not_fit(use) -> None:
    with pytest.raises(TikhonError, match="3 latents"):
        getattr(LatentQuantizer(3), use)(torch.zeros(4, 2))
