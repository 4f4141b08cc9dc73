"""Is multiplicative normal noise as good as dropout of the same variance?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 150 images, is a wide network with Gaussian dropout more accurate than a plain one, and no more "
    "than a point below one with dropout?",
    setting="digits, 150 training images, MLP 64-256-256-10, 60 epochs, batch 32",
    run=training(task={"source": "digits", "train_size": 150}, epochs=60, batch_size=32),
    arms={
        "none": plain(3),
        "dropout": recipes(*(f"dropout(p={p}, at='[24]')" for p in (0.2, 0.5, 0.8))),
        "gaussian_dropout": recipes(*(f"gaussian_dropout(p={p}, at='[24]')" for p in (0.2, 0.5, 0.8))),
    },
    expectations=[
        Expectation("gaussian_dropout", "none"),
        Expectation("gaussian_dropout", "dropout", margin=-0.01),
    ],
)
