"""Do other divergences than the reverse KL keep more variety, and at what price?"""

from tikhon.studies.preferences import run
from tikhon.studies.study import Expectation, Settings, Study


def betas(divergence: str) -> list[Settings]:
    return [{"recipe": f"f_dpo(beta={beta}, divergence='{divergence}')"} for beta in (0.1, 0.3, 1.0)]


study = Study(
    question="Is the entropy of the policy that forward KL, alpha and JS divergences give above that of DPO, and DPO's "
    "reward above theirs?",
    setting="20 prompts with 30 answers each, a softmax table, 160 Bradley-Terry preferences, 600 steps",
    run=run,
    arms={
        "dpo": betas("reverse_kl"),
        "forward_kl": betas("forward_kl"),
        "js": betas("js"),
        "alpha": betas("alpha"),
    },
    expectations=[
        Expectation("forward_kl", "dpo", "entropy"),
        Expectation("alpha", "dpo", "entropy"),
        Expectation("js", "dpo", "entropy"),
        Expectation("dpo", "forward_kl", "reward"),
    ],
)
