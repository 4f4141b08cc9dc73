"""Does dropout help a wide network with few samples?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 150 images, is a wide network with dropout more accurate than a plain one, and its gap smaller?",
    setting="digits, 150 training images, MLP 64-256-256-10, 100 epochs, batch 32",
    run=training(task={"source": "digits", "train_size": 150}, epochs=100, batch_size=32),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "dropout": recipes(*(f"dropout(p={p}, at='[24]')" for p in (0.2, 0.5, 0.8))),
    },
    expectations=[Expectation("dropout", "none"), Expectation("dropout", "none", "gap", "lower")],
)
