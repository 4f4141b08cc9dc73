"""Does the elastic net keep a network from fitting wrong labels?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 40% wrong labels, does a network with the penalty end above a plain one, with a smaller gap?",
    setting="digits, 40% symmetric label noise, MLP 64-256-256-10, 120 epochs",
    run=training(task={"source": "digits", "label_noise": 0.4}, epochs=120),
    arms={
        "none": plain(3),
        "early_stopping": plain(3, "early_stopping"),
        "elastic_net": recipes(
            "elastic_net(l1=0.0001, l2=0.001)", "elastic_net(l1=0.0001, l2=0.003)", "elastic_net(l1=0.0003, l2=0.003)"
        ),
    },
    expectations=[Expectation("elastic_net", "none"), Expectation("elastic_net", "none", "train", "lower")],
)
