"""Do separate strengths keep DPO from spending the chosen answers' probability on unseen ones?"""

from tikhon.studies.preferences import run
from tikhon.studies.study import Expectation, Study

study = Study(
    question="With a weaker push on rejected answers and a likelihood term, do chosen answers gain more than "
    "with DPO, and unseen ones have less, at no loss of reward?",
    setting="20 prompts with 30 answers each, a softmax table, 160 Bradley-Terry preferences, 600 steps",
    run=run,
    arms={
        "dpo": [{"recipe": f"f_dpo(beta={beta})"} for beta in (0.1, 0.3, 1.0)],
        "flex_dpo": [
            {"recipe": f"flex_dpo(beta_chosen={beta}, beta_rejected={beta / 2}, sft=0.1)"} for beta in (0.1, 0.3, 1.0)
        ],
    },
    expectations=[
        Expectation("flex_dpo", "dpo", "chosen"),
        Expectation("flex_dpo", "dpo", "unseen", "lower"),
        Expectation("flex_dpo", "dpo", "reward", margin=-0.05),
    ],
)
