"""PerpGrad: projections in numpy, what norms do under them, and the edges where a direction is lost."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import tikhon
from tikhon.methods.dynamics.perp_grad import orthogonal_to, with_norms_of


def test_projection_agrees_with_numpy():
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape) for shape in [(3, 4), (5,), (2, 1, 3)]]
    gradients = [random.normal(size=one.shape) for one in weights]
    found = orthogonal_to([torch.from_numpy(w) for w in weights], [torch.from_numpy(g) for g in gradients])
    for w, g, projected in zip(weights, gradients, found, strict=True):
        np.testing.assert_allclose(projected, g - (w * g).sum() / (w * w).sum() * w, rtol=1e-12, atol=1e-14)
    scaled = with_norms_of(found, [torch.from_numpy(g) for g in gradients])
    for g, one in zip(gradients, scaled, strict=True):
        assert float(one.norm()) == pytest.approx(np.linalg.norm(g), rel=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1.0, 1e25])
def test_weights_of_any_size(size):
    """In float32 the square of 1e-30 is 0: the direction must not be lost, and zero has none."""
    weights, gradients = [size * torch.tensor([3.0, 4.0])], [torch.tensor([1.0, 2.0])]
    found = orthogonal_to(weights, gradients)[0]
    along = torch.tensor([0.6, 0.8])
    expected = gradients[0] - (along @ gradients[0]) * along if size else gradients[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    weights, gradients = torch.full((512,), 3.0, dtype=dtype), torch.full((512,), 300.0, dtype=dtype)
    gradients[0] = 0.0
    found = orthogonal_to([weights], [gradients])[0]
    expected = orthogonal_to([weights.double()], [gradients.double()])[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_a_rounding_error_is_not_scaled_up():
    weights = torch.randn(7, generator=torch.Generator().manual_seed(0))
    gradients = [0.3 * weights]
    left = with_norms_of(orthogonal_to([weights], gradients), gradients)[0]
    assert left.norm() < 1e-5
    assert not with_norms_of([torch.zeros(3)], [torch.zeros(3)])[0].any()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def attached(model, method, lr=0.1):
    recipe = tikhon.Recipe(method)
    recipe.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe.attach(optimizer)
    return recipe, optimizer


X = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rescale", [False, True])
def test_under_sgd_norms_grow_by_the_square_of_the_step_alone(rescale):
    """Pythagoras: |w - r g|^2 = |w|^2 + r^2 |g|^2 for every tensor."""
    model = network()
    recipe, optimizer = attached(model, tikhon.PerpGrad(rescale=rescale))
    before = [p.detach().clone() for p in model.parameters()]
    recipe.loss(X, Y).backward()
    raw = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    for p, old, g in zip(model.parameters(), before, raw, strict=True):
        length = p.grad.norm()
        assert float(p.detach().norm() ** 2) == pytest.approx(float(old.norm() ** 2 + 0.01 * length**2), rel=1e-12)
        assert float(length) == pytest.approx(float(g.norm()), rel=1e-12) if rescale else length < g.norm()


def test_scaling_of_the_weights_stops():
    """Fitted data: plain training goes on to grow the weights, PerpGrad does not."""

    def growth(*methods):
        model = network()
        recipe = tikhon.Recipe(*methods)
        recipe.prepare(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        recipe.attach(optimizer)
        start = model[2].weight.detach().norm()
        for _ in range(400):
            optimizer.zero_grad()
            recipe.loss(X, X[:, :3].argmax(1)).backward()
            optimizer.step()
        return float(model[2].weight.detach().norm() / start)

    assert growth() > 1.8
    assert growth(tikhon.PerpGrad()) < 1.1


def test_one_element_and_zero_tensors_keep_their_gradients_and_where_is_obeyed():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0]))
            self.zero = nn.Parameter(torch.zeros(3))
            self.free = nn.Parameter(torch.ones(3))
            self.bound = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.scale * (x * (1.0 + self.zero + self.free.square() + self.bound))

    model = Three()
    recipe, optimizer = attached(model, tikhon.PerpGrad(where=("scale", "zero", "bound")))
    recipe.loss(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])).backward()
    raw = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name in ("scale", "zero", "free"):
        assert torch.equal(model.get_parameter(name).grad, raw[name])
    torch.testing.assert_close(model.bound.grad, raw["bound"] - raw["bound"].mean(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(model.bound.grad, raw["bound"])


def test_reparameterised_weights_are_refused_before_anything_changed():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    with pytest.raises(tikhon.TikhonError, match=r"0\.weight is re-parameterised"):
        tikhon.Recipe(tikhon.PerpGrad()).prepare(model)
    tikhon.Recipe(tikhon.PerpGrad(where="1")).prepare(model)


def test_a_selection_that_matches_nothing_is_refused():
    with pytest.raises(tikhon.TikhonError, match="selects no trainable parameter"):
        tikhon.Recipe(tikhon.PerpGrad(where="layer9")).prepare(nn.Linear(2, 2))
