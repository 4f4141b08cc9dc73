"""A fixed comparison in the shape of a real one: digits with 40% wrong labels, six arms, five seeds, sixty epochs."""

import math

from tikhon.report.comparison import Arm, Comparison

EPOCHS, SEEDS = 60, 5
T_QUANTILE = 2.776  # Student's t at 97.5% with four degrees of freedom

# name: final accuracy, accuracy lost to memorising, final training loss, overconfidence, time, memory
ARMS = {
    "none": (0.782, 0.16, 0.05, 0.17, 1.00, 1.00),
    "early_stopping": (0.941, 0.00, 0.90, -0.06, 1.05, 1.00),
    "elr": (0.969, 0.00, 0.70, 0.02, 1.08, 1.02),
    "ps_kd": (0.846, 0.11, 0.20, -0.09, 1.11, 1.04),
    "mixup": (0.901, 0.05, 0.95, -0.12, 1.06, 1.01),
    "elr+mixup": (0.972, 0.00, 1.05, -0.15, 1.14, 1.03),
}


def wobble(arm: int, seed: int, epoch: int = 0) -> float:
    """A number in [-1, 1] that looks random and is not."""
    return math.sin(12.9898 * (arm + 1) + 78.233 * (seed + 1) + 37.719 * epoch)


def interval(values: list[float]) -> tuple[float, float, float]:
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = T_QUANTILE * spread / math.sqrt(len(values))
    return mean, mean - half, mean + half


def accuracy(index: int, seed: int, epoch: int) -> float:
    final, lost, *_ = list(ARMS.values())[index]
    rise = 1 - math.exp(-epoch / 4)
    forget = lost / (1 + math.exp(-(epoch - 25) / 5))
    noise = 0.012 * wobble(index, seed) + 0.006 * wobble(index, seed, epoch)
    return max(0.1, min(1.0, 0.1 + (final + lost - 0.1) * rise - forget + noise))


def loss(index: int, seed: int, epoch: int) -> float:
    final = list(ARMS.values())[index][2]
    return final + (2.3 - final) * math.exp(-epoch / 14) + 0.03 * wobble(index, seed, epoch + 500)


def build(task: dict[str, object] | None = None) -> Comparison:
    plain = [accuracy(0, seed, EPOCHS) for seed in range(SEEDS)]
    arms = []
    for index, (name, (_, _, _, over, time, memory)) in enumerate(ARMS.items()):
        metrics = [accuracy(index, seed, EPOCHS) for seed in range(SEEDS)]
        mean, low, high = interval(metrics)
        difference: tuple[float | None, ...] = (None, None, None)
        if name != "none":
            difference = interval([one - other for one, other in zip(metrics, plain, strict=True)])
        confidence = [0.05 + 0.1 * bin for bin in range(10)]
        right = [min(1.0, max(0.0, value - over * math.sin(math.pi * value) * 1.4)) for value in confidence]
        arms.append(
            Arm(
                name=name,
                mean=mean,
                low=low,
                high=high,
                difference=difference[0],
                difference_low=difference[1],
                difference_high=difference[2],
                calibration_error=abs(over),
                gap=over,
                relative_time=time,
                relative_memory=memory,
                seeds=[{"seed": seed, "metric": value} for seed, value in enumerate(metrics)],
                curves={
                    "test_metric": [[accuracy(index, s, e) for e in range(1, EPOCHS + 1)] for s in range(SEEDS)],
                    "train_loss": [[loss(index, s, e) for e in range(1, EPOCHS + 1)] for s in range(SEEDS)],
                },
                reliability={
                    "confidence": [None, *confidence[1:]],
                    "accuracy": [None, *right[1:]],
                    "count": [0, *(2 + bin**2 for bin in range(1, 10))],
                },
            )
        )
    return Comparison(task or TASK, arms)


TASK: dict[str, object] = {
    "data": "digits",
    "metric": "accuracy",
    "label_noise": 0.4,
    "model": "mlp",
    "train_samples": 1257,
    "test_samples": 540,
    "epochs": EPOCHS,
    "seeds": SEEDS,
    "shift": None,
}
