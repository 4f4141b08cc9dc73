"""Variance risk extrapolation: a network whose risk is the same in every training domain."""

from __future__ import annotations

from torch import Tensor

from tikhon.core.card import Card
from tikhon.core.domains import Domains
from tikhon.core.method import Method
from tikhon.core.step import Step
from tikhon.core.strength import Strength, checked
from tikhon.core.target import Target
from tikhon.core.terms import Term, Terms
from tikhon.math.domains import mean_over


def risk_variance(risks: Tensor, present: Tensor) -> Tensor:
    """The variance of the risks of the domains present, over their number (Krueger et al. 2021, arXiv 2003.00688).

    risks: (E,), the mean loss of each domain; present: (E,), 1.0 for domains in the batch and 0.0 for others. Returns a
    scalar, at least 0; 0 for a single domain.

    >>> risk_variance(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
    tensor(1.)
    """
    return mean_over((risks - mean_over(risks, present)).square(), present)


class VREx(Method):
    """Make the mean loss equal in all training domains.

    Use it where training data come from several domains (hospitals, cameras, years) and the test domain may differ from
    all of them more than they do from each other. Not with one domain, nor where some domains are harder by nature: the
    penalty then keeps the easy ones from being learned.

        loss = task + beta Var_e(R_e)

    R_e: the mean loss of the batch's samples of domain e; the variance is that over the domains in the batch.

    domains: (samples,), the domain of every training sample as an integer from 0; beta: at least 0, 10; the paper has
    up to 1e4 after some epochs with 1, as in `tikhon.stepwise({0.0: 1.0, 0.4: 1e4})`. It is to be searched. With the
    mean of the task's loss in place of the paper's sum over domains, beta here is theirs over the number of domains. A
    batch should hold many samples of every domain. Under mixing a row is of its own sample's domain.

    Cost: a mean for each domain.
    Reference: Krueger, Caballero, Jacobsen, Zhang, Binas, Zhang, Le Priol, Courville 2021, arXiv 2003.00688.

    >>> domains = torch.tensor([0, 0, 1, 1])  # of every training sample
    >>> recipe = tikhon.Recipe(tikhon.VREx(domains))
    """

    card = Card(
        title="Out-of-Distribution Generalization via Risk Extrapolation (REx)",
        authors="Krueger, Caballero, Jacobsen, Zhang, Binas, Zhang, Le Priol, Courville",
        year=2021,
        arxiv="2003.00688",
        problems=("shift",),
        formula=r"L = \mathrm{task} + \beta\,\mathrm{Var}_e(R_e)",
        claim="Equal risks in the training domains make a network robust to larger shifts of the same kind.",
        helps="Several training domains whose shift may grow in the test domain.",
        hurts="One domain; domains that are harder by nature.",
        cost="A mean of the loss for each domain.",
        neutral="beta=0",
    )
    needs = frozenset({"ids"})
    exempt = {
        "accumulation": "the risk of a domain is that of its samples in one batch",
        "permutation": "the variance is a property of the batch",
    }

    def __init__(self, domains: Tensor, beta: Strength = 10.0) -> None:
        super().__init__()
        self.domains = Domains(domains, self.key)
        self.beta = checked("beta", beta, low=0.0)

    def terms(self, output: Tensor, target: Target, step: Step) -> Terms:
        if step.value(self.beta) == 0.0:
            return {}
        risks, present = self.domains.risks(step.loss, output, target)
        return {"vrex": Term(risk_variance(risks, present), self.beta, per_sample=False)}
