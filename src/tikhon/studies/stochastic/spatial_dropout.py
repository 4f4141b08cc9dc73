"""Does dropping whole feature maps help a convolutional network with few images more than dropping pixels?"""

from tikhon.studies.study import Expectation, Settings, Study, plain, training


def at_its_rate(*names: str) -> list[Settings]:
    """Candidates at the rate that suits the network, which the plain arm has among its own."""
    return [{"recipe": name, "learning_rate": 0.03} for name in names]


study = Study(
    question="With 150 images, is a convolutional network that drops whole maps more accurate than a plain one, and "
    "than one that drops pixels?",
    setting="digits, 150 training images, convolutional network, after the first two convolutions, 40 epochs, batch 32",
    run=training(task={"source": "digits", "train_size": 150}, model="cnn", epochs=40, batch_size=32),
    arms={
        "none": plain(3, rates=(0.1, 0.03, 0.01)),
        "dropout": at_its_rate(*(f"dropout(p={p}, at='[26]')" for p in (0.1, 0.2, 0.4))),
        "spatial_dropout": at_its_rate(*(f"spatial_dropout(at='[26]', p={p})" for p in (0.1, 0.2, 0.4))),
    },
    expectations=[Expectation("spatial_dropout", "none"), Expectation("spatial_dropout", "dropout")],
)
