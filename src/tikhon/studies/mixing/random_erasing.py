"""Does random erasing help a small convolutional network with few images?"""

from tikhon.studies.study import Expectation, Study, plain, recipes, training

study = Study(
    question="With 200 images, is a convolutional network trained with random erasing more accurate than a plain one?",
    setting="digits, 200 training images, convolutional network, 60 epochs, batch 64",
    run=training(task={"source": "digits", "train_size": 200}, model="cnn", epochs=60, batch_size=64),
    arms={
        "none": plain(3, rates=(0.1, 0.03, 0.01)),
        "random_erasing": recipes(
            "random_erasing(p=0.25)", "random_erasing(p=0.5)", "random_erasing(p=0.5, largest=0.2)"
        ),
    },
    expectations=[Expectation("random_erasing", "none")],
)
