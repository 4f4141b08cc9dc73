"""Is a network that mixes features ahead of a plain one, and of one that mixes inputs?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 150 images, is a network that mixes features after its layers and inputs more accurate than a plain "
    "one, and than one that mixes inputs alone?",
    setting="digits, 150 training images, MLP 64-256-256-10, 100 epochs, batch 32",
    run=training(task={"source": "digits", "train_size": 150}, epochs=100, batch_size=32),
    arms={
        "none": plain(2),
        "mixup": recipes("mixup(alpha=1.0)", "mixup(alpha=2.0)"),
        "manifold_mixup": recipes("manifold_mixup(at='[24]', alpha=1.0)", "manifold_mixup(at='[24]', alpha=2.0)"),
    },
    expectations=[Expectation("manifold_mixup", "none"), Expectation("manifold_mixup", "mixup")],
)
