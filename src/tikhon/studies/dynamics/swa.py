"""Is the average of the last weights of training at a constant rate better than the last of them?"""

from tikhon.studies.study import Expectation, Study, plain, training

RATES = (0.1, 0.05, 0.2)

study = Study(
    question="At a constant learning rate, is the average of the weights of the last epochs more accurate than the "
    "last weights?",
    setting="mnist1d, 500 training samples, MLP 40-256-256-10, 40 epochs, average over the last half",
    run=training(task={"source": "mnist1d", "train_size": 500}, epochs=40),
    arms={
        "none": plain(3, rates=RATES),
        "early_stopping": plain(3, "early_stopping", rates=RATES),
        "swa": [{"recipe": "swa(start=0.5)", "learning_rate": rate} for rate in RATES],
    },
    expectations=[Expectation("swa", "none")],
)
