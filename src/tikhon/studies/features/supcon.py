"""Does supervised contrast help where labels are few?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 100 labelled digits, is accuracy with supervised contrast above that of plain training?",
    setting="100 digits, MLP 64-256-256-10, 100 epochs on all at once",
    run=training(task={"source": "digits", "train_size": 100}, epochs=100, batch_size=100),
    arms={
        "none": plain(3),
        "supcon": recipes("supcon(strength=0.1)", "supcon(strength=0.3)", "supcon(strength=1.0)"),
    },
    expectations=[Expectation("supcon", "none")],
)
