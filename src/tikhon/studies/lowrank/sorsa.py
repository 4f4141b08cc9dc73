"""Does SORSA learn faster than LoRA, and is it better than PiSSA?"""

from tikhon.studies.adaptation import RANK, rates, run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="At the same rank, is SORSA's training loss after half of the steps below LoRA's, and its accuracy at the "
    "end above LoRA's and PiSSA's?",
    setting="digits, MLP 64-256-256-10 pretrained on 0 to 4, adapted to 5 to 9 with rank 4, 10 epochs of Adam",
    run=run,
    arms={
        "lora": rates(lora=True),
        "pissa": rates(recipe=f"pissa(rank={RANK})"),
        "sorsa": rates(recipe=f"sorsa(rank={RANK})"),
    },
    expectations=[
        Expectation("sorsa", "lora", "loss", "lower"),
        Expectation("sorsa", "lora"),
        Expectation("sorsa", "pissa"),
    ],
)
