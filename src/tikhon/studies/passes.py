"""What a step of each method does beside plain training: passes through the network, and sweeps over its parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """What a step adds, in passes of the whole batch and in operations that read every parameter once.

    With the arguments of the card's example, or none. A pass without gradient counts as one forward; the way back
    through a gradient counts as one backward. A test counts them, so that no number here is a claim.
    """

    forward: int = 0
    backward: int = 0
    sweeps: int = 0


PASSES: dict[str, Passes] = {
    "adamixup": Passes(forward=1, backward=1, sweeps=1),
    "adversarial_training": Passes(forward=7, backward=7),
    "agc": Passes(sweeps=4),
    "asam": Passes(forward=1, backward=1, sweeps=9),
    "awp": Passes(forward=1, backward=1, sweeps=8),
    "class_relation_kd": Passes(forward=1),
    "clip_grad_norm": Passes(sweeps=2),
    "clip_grad_value": Passes(sweeps=2),
    "co_teaching": Passes(forward=1, backward=1, sweeps=3),
    "coherent_splats": Passes(sweeps=2),
    "dr_tune": Passes(forward=1),
    "dropconnect": Passes(sweeps=4),
    "elastic_net": Passes(sweeps=6),
    "ema": Passes(sweeps=1),
    "gradient_centralisation": Passes(sweeps=2),
    "gradient_noise": Passes(sweeps=1),
    "ibp": Passes(forward=2, backward=2, sweeps=5),
    "input_gradient": Passes(backward=2, sweeps=1),
    "jacobian": Passes(backward=2, sweeps=1),
    "l0": Passes(sweeps=4),
    "l1": Passes(sweeps=4),
    "l2": Passes(sweeps=2),
    "mask_tuning": Passes(forward=1, backward=1, sweeps=11),
    "mean_teacher": Passes(forward=1, sweeps=1),
    "orth_conv": Passes(sweeps=1),
    "perp_grad": Passes(sweeps=9),
    "quant_nas": Passes(sweeps=1),
    "sam": Passes(forward=1, backward=1, sweeps=5),
    "sara": Passes(sweeps=3),
    "si": Passes(sweeps=4),
    "spectral_norm": Passes(sweeps=9),
    "trades": Passes(forward=11, backward=11, sweeps=1),
    "vat": Passes(forward=2, backward=2, sweeps=1),
    "weight_compander": Passes(sweeps=4),
    "weight_norm": Passes(sweeps=2),
    "wgsef": Passes(sweeps=2),
}
"""By name; a method without an entry adds no pass, and less than half a sweep."""
