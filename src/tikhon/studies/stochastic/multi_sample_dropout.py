"""Do several dropout masks a step train faster than one?"""

from tikhon.studies.study import Expectation, Study, recipes, training

study = Study(
    question="After few epochs, is a network with 8 dropout masks a step ahead of one with a single mask?",
    setting="digits, MLP 64-256-256-10, 5 epochs",
    run=training(task={"source": "digits"}, epochs=5),
    arms={
        "one mask": recipes(*(f"multi_sample_dropout(samples=1, p={p})" for p in (0.3, 0.5, 0.7))),
        "eight masks": recipes(*(f"multi_sample_dropout(samples=8, p={p})" for p in (0.3, 0.5, 0.7))),
    },
    expectations=[Expectation("eight masks", "one mask")],
)
