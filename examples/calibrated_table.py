"""A classifier on a table whose probabilities can be believed: calibration measured, mended, and drawn.

python examples/calibrated_table.py
python examples/calibrated_table.py --out reliability.png
"""

import argparse
from pathlib import Path

import matplotlib
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tikhon as tk
from tikhon.integrations.sklearn import TikhonClassifier

RECIPES = ("none", "l2(strength=0.003)", "vib(strength=0.01)", "mixup(alpha=0.2)")


def main(epochs: int, out: Path | None) -> None:
    table, labels = load_breast_cancer(return_X_y=True)
    x, test_x, y, test_y = train_test_split(table, labels, train_size=150, stratify=labels, random_state=0)
    diagrams = {}
    for recipe in RECIPES:
        classifier = make_pipeline(StandardScaler(), TikhonClassifier(recipe, epochs=epochs, random_state=0))
        classifier.fit(x, y)
        probabilities = torch.as_tensor(classifier.predict_proba(test_x))
        target = torch.as_tensor(test_y)
        diagrams[recipe] = tk.reliability(probabilities, target, bins=10)
        error = tk.debiased_calibration_error(probabilities, target, bins=10)
        print(
            f"{recipe:20} accuracy {classifier.score(test_x, test_y):.3f}, "
            f"expected calibration error {diagrams[recipe].expected_error:.3f}, without its bias {error:.3f}"
        )
    if out is not None:
        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, len(RECIPES), figsize=(4 * len(RECIPES), 4), layout="constrained")
        for place, (recipe, diagram) in zip(axes, diagrams.items(), strict=True):
            diagram.plot(place)
            place.set_title(recipe)
        figure.savefig(out)
        print(f"drawn in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(given.epochs, given.out)
