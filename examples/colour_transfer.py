"""A picture in the colours of another, by optimal transport between their palettes.

python examples/colour_transfer.py
python examples/colour_transfer.py picture.jpg palette.jpg --out transferred.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images

from tikhon.math.sinkhorn import sinkhorn

NEAR = 0.01
"""How near a colour of the palette is to a pixel that moves with it, in squared distances."""


def opened(path: Path | None, sample: int) -> np.ndarray:
    """A picture as (height, width, 3) in [0, 1]; without a path one that scikit-learn ships."""
    picture = load_sample_images().images[sample] if path is None else np.asarray(Image.open(path).convert("RGB"))
    return picture / 255.0


def palette(picture: np.ndarray, colours: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The colours of a picture, (colours, 3), and the share of each."""
    pixels = picture.reshape(-1, 3)
    chosen = np.random.default_rng(0).choice(len(pixels), min(len(pixels), 5000), replace=False)
    found = KMeans(colours, n_init=1, random_state=0).fit(pixels[chosen])
    shares = np.bincount(found.labels_, minlength=colours) / len(chosen)
    return torch.as_tensor(found.cluster_centers_), torch.as_tensor(shares)


def main(picture: Path | None, colours_of: Path | None, colours: int, epsilon: float, out: Path) -> None:
    source = opened(picture, 0)
    own, own_shares = palette(source, colours)
    wanted, wanted_shares = palette(opened(colours_of, 1), colours)

    cost = torch.cdist(own, wanted).square()
    found = sinkhorn(cost, own_shares, wanted_shares, epsilon=epsilon)
    print(
        f"transport cost {found.cost:.4f}, marginals met to {found.marginal_error:.1e} in {found.iterations} iterations"
    )

    # Every colour moves to the mean of where its mass goes. A pixel moves with the colours near it: no edges appear.
    moves = (found.plan @ wanted / own_shares[:, None] - own).float()
    pixels = torch.as_tensor(source, dtype=torch.float32).reshape(-1, 3)
    near = torch.softmax(-torch.cdist(pixels, own.float()).square() / NEAR, dim=1)
    moved = (pixels + near @ moves).reshape(source.shape).numpy()
    Image.fromarray((255.0 * moved.clip(0.0, 1.0)).round().astype(np.uint8)).save(out)
    print(f"written to {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, nargs="?", help="by default one of scikit-learn's")
    parser.add_argument("colours_of", type=Path, nargs="?", help="the picture whose colours it gets")
    parser.add_argument("--colours", type=int, default=64)
    parser.add_argument("--epsilon", type=float, default=0.003, help="smoothing of the plan, in squared distances")
    parser.add_argument("--out", type=Path, default=Path("transferred.png"))
    given = parser.parse_args()
    main(given.picture, given.colours_of, given.colours, given.epsilon, given.out)
