"""Supervised dictionary learning: atoms that rebuild the data and tell its classes, found together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tikhon.core.card import Card
from tikhon.core.errors import TikhonError

__all__ = ["SupervisedDictionary", "joint_objective", "left_singular_vectors"]

card = Card(
    title="Supervised Dictionary Learning with Auxiliary Covariates",
    authors="Lee, Lyu, Yao",
    year=2022,
    arxiv="2206.06774",
    problems=("overfitting", "imbalance"),
    formula=r"\min_{W,H,\beta,\Gamma}\sum_s \ell(y_s,\beta^\top W^\top x_s+\Gamma^\top c_s)+\xi\lVert X-WH\rVert_F^2",
    claim="One convex problem with a bound on a rank: descends exponentially fast to its optimum, and helps most where "
    "the atoms that rebuild best are not those that tell the classes.",
    helps="Few samples in many dimensions, whose classes show in directions of little variance.",
    hurts="Classes that no linear function of the data tells apart.",
    cost="A singular value decomposition a step, of features x (classes + features).",
    neutral="",
    kind="solver",
)

Variant = Literal["filter", "feature"]


class _Descent(NamedTuple):
    """Where a descent ended: A, Gamma and the span; after how many steps; the relative length of the last."""

    solution: tuple[Tensor, Tensor, Tensor]
    steps: int
    residual: float


def left_singular_vectors(matrix: Tensor, rank: int) -> Tensor:
    """The `rank` leading left singular vectors of a matrix (M, Q), as columns (M, rank).

    >>> left_singular_vectors(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2).abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    vectors: Tensor = torch.linalg.svd(matrix, full_matrices=False)[0]
    return vectors[:, :rank]


def joint_objective(
    a: Tensor, gamma: Tensor, u: Tensor, x: Tensor, labels: Tensor, c: Tensor, xi: float, ridge: float, variant: Variant
) -> Tensor:
    """sum_s CE(y_s, scores_s) + xi ||X - its part in the span of u||^2 + (ridge / 2) (||a||^2 + ||gamma||^2).

    filter: a (P, K), u (P, r) orthonormal columns, scores X a + C gamma; feature: a (N, K), u (N, r), scores
    a + C gamma. x: (N, P); labels: (N,); c: (N, Q); gamma: (Q, K). Returns a scalar.
    """
    scores = (x @ a if variant == "filter" else a) + c @ gamma
    lost: Tensor = x - x @ u @ u.T if variant == "filter" else x - u @ (u.T @ x)
    weights = a.square().sum() + gamma.square().sum()
    return F.cross_entropy(scores, labels, reduction="sum") + xi * lost.square().sum() + 0.5 * ridge * weights


class SupervisedDictionary:
    """A dictionary W (features x atoms) and a classifier on its codes, learned in one problem.

    Use it for few samples in many dimensions, where components of greatest variance tell little of the classes, as with
    rare topics or small lesions. The problem is lifted to the products A = W beta and B = W H: convex but for the bound
    on the rank of [A, B], to which each gradient step is projected by a singular value decomposition. Steps on B are
    exact, those on A have momentum that restarts. Of a descent from 0 and one from the optimum without the bound the
    better is kept. In float64 on the CPU.

        min sum_s CE(y_s, beta^T W^T x_s + Gamma^T c_s) + xi ||X - W H||^2 + (ridge / 2) (||A||^2 + ||Gamma||^2)

    atoms: the rank r, at least 1; xi: weight of the reconstruction, at least 0: 0 is multinomial regression (of reduced
    rank), and the larger, the nearer W comes to principal components; ridge: at least 0, bounds the regression where
    classes can be separated; variant: "filter" reads classes off W^T x, "feature" off the codes H themselves (of new
    samples those of least squares); tolerance: of a step, relative; iterations: at most. Data are taken as they are:
    centre them first. Covariates c act on the classes alone; a constant is always among them.

    After `fit`: `dictionary` W (P, r), `codes_` H (N, r), `regression` beta (r, K), `offsets` Gamma (Q + 1, K), the
    constant last, `objective`, `steps`, `residual` (the last relative step) and `converged`. The bound on the rank
    allows several optima where reconstruction and classes want different atoms.

    Cost: a singular value decomposition a step, of features x (classes + features) or samples x (the same).
    Reference: Lee, Lyu, Yao 2022, arXiv 2206.06774. Their nonnegative variant by block descent is left out.

    >>> x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    >>> labels = (x[:, 0] > 0).long()
    >>> model = tikhon.SupervisedDictionary(atoms=2, xi=0.1).fit(x, labels)
    >>> model.dictionary.shape, model.predict(x).shape, model.converged
    (torch.Size([8, 2]), torch.Size([60]), True)
    """

    def __init__(
        self,
        atoms: int,
        xi: float = 1.0,
        ridge: float = 1.0,
        variant: Variant = "filter",
        tolerance: float = 1e-10,
        iterations: int = 20_000,
    ) -> None:
        if isinstance(atoms, bool) or not isinstance(atoms, int) or atoms < 1:
            raise TikhonError(f"atoms must be a whole number, at least 1, not {atoms!r}.")
        if not (0.0 <= xi < float("inf") and 0.0 <= ridge < float("inf")):
            raise TikhonError(f"xi and ridge must be finite and at least 0, not {xi} and {ridge}.")
        if variant not in ("filter", "feature"):
            raise TikhonError(f"variant is 'filter' or 'feature', not {variant!r}.")
        if not tolerance > 0.0 or iterations < 1:
            raise TikhonError(f"tolerance and iterations must be positive, not {tolerance} and {iterations}.")
        self.atoms, self.xi, self.ridge, self.variant = atoms, xi, ridge, variant
        self.tolerance, self.iterations = tolerance, iterations

    def fit(self, x: Tensor, labels: Tensor, covariates: Tensor | None = None) -> SupervisedDictionary:
        """Solve for x (N, P), labels (N,) int64 from 0 on and covariates (N, Q), if any; returns the object itself."""
        self._refuse(x, labels)
        with torch.no_grad():
            data, design = x.detach().double().cpu(), self._design(x, covariates)
            a, self.offsets, u = self._solved(data, labels.cpu(), design)
            self.regression = u.T @ a
            filters = self.variant == "filter"
            self.dictionary = u if filters else data.T @ u
            self.codes_ = data @ u if filters else u
        return self

    def codes(self, x: Tensor) -> Tensor:
        """Of new samples (N, P) -> (N, r): W^T x where it filters, else the codes of least squares."""
        data = x.detach().double().cpu()
        return data @ (self.dictionary if self.variant == "filter" else torch.linalg.pinv(self.dictionary).T)

    def scores(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Of new samples (N, P) -> (N, K), float64: softmax over the classes gives probabilities."""
        scores: Tensor = self.codes(x) @ self.regression + self._design(x, covariates) @ self.offsets
        return scores

    def predict(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Of new samples (N, P) -> (N,), int64: the class of the greatest score."""
        return self.scores(x, covariates).argmax(1)

    def reconstructed(self, x: Tensor) -> Tensor:
        """Of new samples (N, P) -> (N, P), float64: their parts in the span of the dictionary."""
        rebuilt: Tensor = x.detach().double().cpu() @ self.dictionary @ torch.linalg.pinv(self.dictionary)
        return rebuilt

    def _solved(self, x: Tensor, labels: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A, Gamma and the span of W ("filter") or of the codes ("feature"): the better of two descents.

        Small steps from 0 do not leave the principal components where these rebuild far better than all else, so the
        other descent begins at the optimum without the bound on the rank.
        """
        rows, classes = x.shape[1] if self.variant == "filter" else len(x), int(labels.max()) + 1
        zero = x.new_zeros(rows, classes), x.new_zeros(c.shape[1], classes)
        free = self._descended(zero, x, labels, c, rows)
        found = []
        for start in (free.solution[:2], zero):
            end = self._descended(start, x, labels, c, min(self.atoms, *x.shape))
            value = joint_objective(*end.solution, x, labels, c, self.xi, self.ridge, self.variant)
            found.append((float(value), end))
        self.objective, best = min(found, key=lambda one: one[0])
        self.steps, self.residual, self.converged = best.steps, best.residual, best.residual <= self.tolerance
        return best.solution

    def _descended(self, start: tuple[Tensor, Tensor], x: Tensor, labels: Tensor, c: Tensor, rank: int) -> _Descent:
        """Projected gradient descent from there, until a step changes nothing any more."""
        filters = self.variant == "filter"
        one_hot = F.one_hot(labels).double()
        # The softmax's curvature is at most 1/2; both blocks of the scores share it in "feature".
        both = torch.cat([x, c], dim=1) if filters else 2.0**0.5 * c
        bound_c = 0.5 * float(torch.linalg.matrix_norm(both, 2)) ** 2 + self.ridge
        bound_a = bound_c if filters else 1.0 + self.ridge
        left, values, _ = torch.linalg.svd(x.T if filters else x, full_matrices=False)
        rebuilt = (2.0 * self.xi) ** 0.5 * left * values  # all of X that a projection from the left can tell

        def step(a: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            wrong = ((x @ a if filters else a) + c @ gamma).softmax(1) - one_hot
            down = a - ((x.T @ wrong if filters else wrong) + self.ridge * a) / bound_a
            u = left_singular_vectors(torch.cat([bound_a**0.5 * down, rebuilt], dim=1), rank)
            return u @ (u.T @ down), gamma - (c.T @ wrong + self.ridge * gamma) / bound_c, u

        (a, gamma), ahead, u, momentum = start, start, rebuilt[:, :rank], 1.0
        steps, residual = 0, float("inf")
        while steps < self.iterations and residual > self.tolerance:
            steps += 1
            new_a, new_gamma, u = step(*ahead)
            off, moved = (new_a - ahead[0], new_gamma - ahead[1]), (new_a - a, new_gamma - gamma)
            size = float(new_a.square().sum() + new_gamma.square().sum())
            residual = (float(off[0].square().sum() + off[1].square().sum()) / max(size, 1e-30)) ** 0.5
            uphill = float((off[0] * moved[0]).sum() + (off[1] * moved[1]).sum()) < 0.0
            following = 1.0 if uphill else 0.5 + (0.25 + momentum**2) ** 0.5
            share = 0.0 if uphill else (momentum - 1.0) / following
            ahead = new_a + share * moved[0], new_gamma + share * moved[1]
            a, gamma, momentum = new_a, new_gamma, following
        return _Descent((a, gamma, u), steps, residual)

    def _design(self, x: Tensor, covariates: Tensor | None) -> Tensor:
        """Covariates with a constant behind them, (N, Q + 1)."""
        constant = torch.ones(len(x), 1, dtype=torch.float64)
        if covariates is None:
            return constant
        if covariates.ndim != 2 or len(covariates) != len(x):
            raise TikhonError(f"Covariates must be ({len(x)}, Q), a row a sample, not {tuple(covariates.shape)}.")
        return torch.cat([covariates.detach().double().cpu(), constant], dim=1)

    def _refuse(self, x: Tensor, labels: Tensor) -> None:
        if x.ndim != 2 or labels.shape != x.shape[:1] or labels.dtype != torch.int64 or not len(x):
            raise TikhonError(
                f"fit needs x (N, P) and int64 labels (N,), not {tuple(x.shape)} and {tuple(labels.shape)} "
                f"of {labels.dtype}."
            )
        if int(labels.min()) < 0 or int(labels.max()) < 1:
            raise TikhonError("Labels must run from 0 on, over two classes at least.")
        if not bool(torch.isfinite(x).all()):
            raise TikhonError("Some data are NaN or infinite.")
