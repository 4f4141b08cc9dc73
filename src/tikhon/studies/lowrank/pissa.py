"""Does PiSSA learn faster than LoRA, and to a better end?"""

from tikhon.studies.adaptation import RANK, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="At the same rank, is PiSSA's training loss after half of the steps below LoRA's, its accuracy at the end "
    "above, and within a point of full fine-tuning?",
    setting="digits, MLP 64-256-256-10 pretrained on 0 to 4, adapted to 5 to 9 with rank 4, 10 epochs of Adam",
    run=run,
    arms={
        "full": rates(recipe="none"),
        "lora": rates(lora=True),
        "pissa": rates(recipe=f"pissa(rank={RANK})"),
    },
    expectations=[
        Expectation("pissa", "lora", "loss", "lower"),
        Expectation("pissa", "lora"),
        Expectation("pissa", "full", margin=-0.01),
    ],
)
