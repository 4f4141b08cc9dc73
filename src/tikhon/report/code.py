"""A recipe of the command line as Python to paste."""

from __future__ import annotations

import ast
from typing import Literal

from tikhon.core.catalogue import methods
from tikhon.studies.arms import EARLY_STOPPING
from tikhon.tuning.space import Candidate

_OPTIMIZERS = {
    "sgd": "torch.optim.SGD(model.parameters(), lr={rate!r}, momentum=0.9)",
    "adam": "torch.optim.Adam(model.parameters(), lr={rate!r})",
}


def python_code(candidate: Candidate, optimizer: str, epochs: int, kind: Literal["classes", "values"]) -> str:
    """The block of set-up for one's own training loop, in which `model` and `train` are there.

    >>> print(python_code(Candidate("elr(strength=2.0)", 0.1), "sgd", 60, "classes").splitlines()[3])
    recipe = tk.Recipe(tk.ELR(strength=2.0))
    """
    return (
        "import torch\n"
        "import tikhon as tk\n"
        "\n"
        f"recipe = {recipe_code(candidate.recipe, kind)}\n"
        "model = recipe.prepare(model, samples=len(train))\n"
        f"optimizer = {_OPTIMIZERS[optimizer].format(rate=candidate.learning_rate)}\n"
        f"recipe.attach(optimizer, epochs={epochs})\n"
        "# In the end, keep the epoch that is best on validation data.\n"
    )


def recipe_code(recipe: str, kind: Literal["classes", "values"]) -> str:
    """A recipe of the command line as an expression.

    >>> recipe_code("elr(strength=2.0)", "classes")
    'tk.Recipe(tk.ELR(strength=2.0))'
    """
    made = [ast.unparse(_Qualified().visit(node)) for node in _calls(recipe)]
    if kind == "values":
        made.append("base=torch.nn.functional.mse_loss")
    return f"tk.Recipe({', '.join(made)})"


def _calls(recipe: str) -> list[ast.expr]:
    def addends(node: ast.expr) -> list[ast.expr]:
        return [*addends(node.left), *addends(node.right)] if isinstance(node, ast.BinOp) else [node]

    found = addends(ast.parse(recipe, mode="eval").body)
    calls = [node if isinstance(node, ast.Call) else ast.Call(node, [], []) for node in found]
    return [call for call in calls if ast.unparse(call.func) not in ("none", EARLY_STOPPING)]


class _Qualified(ast.NodeTransformer):
    """Methods and schedules by their names in the package."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        known = methods().get(name)
        return ast.Call(ast.Name(f"tk.{known.class_name if known else name}"), node.args, node.keywords)
