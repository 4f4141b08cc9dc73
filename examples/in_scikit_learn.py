"""Which methods help on 200 digits? A grid search over recipes, with scikit-learn's own tools.

python examples/in_scikit_learn.py
python examples/in_scikit_learn.py --processes 2
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tikhon.integrations.sklearn import TikhonClassifier


def main(processes: int, epochs: int) -> None:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, train_size=200, stratify=y, random_state=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), TikhonClassifier(epochs=epochs)),
        {"tikhonclassifier__methods": ["none", "mixup", "label_smoothing", "elr", "mixup+l2(strength=0.0001)"]},
        cv=3,
        n_jobs=processes,
    )
    search.fit(X, y)
    for methods, score in zip(
        search.cv_results_["param_tikhonclassifier__methods"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"{methods:<26} {score:.3f}")
    print(f"test accuracy {search.score(X_test, y_test):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    main(given.processes, given.epochs)
