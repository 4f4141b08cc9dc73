"""A generator of digits-like points that must never make one of its ten modes again, without its training data.

It sorts samples of its own into what may stay and what must go, adapts a copy to the latter, and then keeps away from
that copy's weights while it goes on with the former.

python examples/unlearn_class.py
"""

import argparse
import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

import tikhon as tk

MODES, SPREAD = 10, 0.3


def centres():
    angles = 2.0 * math.pi * torch.arange(MODES) / MODES
    return 4.0 * torch.stack([angles.cos(), angles.sin()], dim=1)


def mode(points):
    return torch.cdist(points, centres()).argmin(1)


def velocities(x):
    """A batch of flow matching: points on the way from noise to data with their times, and the way to go."""
    noise, t = torch.randn_like(x), torch.rand(len(x), 1)
    return torch.cat([t * x + (1.0 - t) * noise, t], dim=1), x - noise


def train(model, data, steps, rate, *methods, kept=None):
    recipe = tk.Recipe(*methods, base=F.mse_loss)
    recipe.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    recipe.attach(optimizer)
    if kept is not None:
        recipe.end_task([velocities(kept)])
    for _ in range(steps):
        inputs, wanted = velocities(data[torch.randint(len(data), (256,))])
        optimizer.zero_grad()
        recipe.loss(inputs, wanted).backward()
        optimizer.step()
    return recipe.export()


@torch.no_grad()
def sample(model, count=4000, steps=50):
    x = torch.randn(count, 2)
    for step in range(steps):
        x = x + model(torch.cat([x, torch.full((count, 1), (step + 0.5) / steps)], dim=1)) / steps
    return x


def report(name, model):
    counts = torch.bincount(mode(sample(model)), minlength=MODES)
    print(f"{name:10}", *(f"{int(one):5}" for one in counts))


def main(steps: int) -> None:
    torch.manual_seed(0)
    data = centres()[torch.randint(MODES, (4000,))] + SPREAD * torch.randn(4000, 2)
    model = nn.Sequential(nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
    train(model, data, steps, 2e-3)
    print("samples of each mode; the first must go")
    report("before", model)

    drawn = sample(model)
    stay, go = drawn[mode(drawn) > 0], drawn[mode(drawn) == 0]
    adapted = train(copy.deepcopy(model), go, max(1, steps // 8), 1e-3, tk.EWC(100.0), kept=stay[:1000])
    pairs = zip(adapted.parameters(), model.parameters(), strict=True)
    start = float(sum((one - other).detach().square().sum() for one, other in pairs))
    train(model, stay, max(1, steps // 40), 1e-3, tk.RepulsionUnlearn(adapted.state_dict(), strength=100.0 * start))
    report("after", model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="of training the generator")
    main(parser.parse_args().steps)
