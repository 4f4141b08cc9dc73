"""The text example in a quick form, on a tiny encoder, and the form of its stored results."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

FILE = Path(__file__).parents[2] / "examples" / "text_encoder.py"
LAYERS = ("encoder.layer.linear1.weight", "encoder.layer.linear2.weight")
WIDTH, WORDS, LENGTH = 16, 20, 6


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("text_encoder", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["text_encoder"] = module
    specification.loader.exec_module(module)
    return module


class Encoder(nn.Module):
    """What a transformers encoder is to the example: token ids and a mask in, features of every token out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 24, dropout=0.1, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.layer(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        return SimpleNamespace(last_hidden_state=hidden)


def splits_of(seed: int) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Texts of random words; the class is which of three words the text holds most of."""
    generator = torch.Generator().manual_seed(seed)

    def split(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.randint(3, (rows,), generator=generator)
        ids = torch.randint(3, WORDS, (rows, LENGTH), generator=generator)
        ids[:, 1:3] = labels[:, None]
        mask = torch.ones(rows, LENGTH, dtype=torch.int64)
        mask[::2, -1] = 0
        return ids, mask, labels

    return {"train": split(48), "validation": split(24), "test": split(40)}


ARMS = {"full": (1e-3, 3e-3), "lora": (3e-3, 1e-2), "pissa": (3e-3, 1e-2), "sorsa": (3e-3, 1e-2)}


def quick(example: ModuleType, path: Path, **changed: object) -> dict:
    settings = example.Settings(**{"rank": 2, "epochs": 3, "batch_size": 8, "classes": 3, "adapted": LAYERS, **changed})
    return example.compare(Encoder(), WIDTH, splits_of, ARMS, range(2), settings, path)


def test_every_arm_learns_and_is_merged_exactly(example: ModuleType, tmp_path: Path) -> None:
    stored = quick(example, tmp_path / "results.json")
    assert stored == json.loads((tmp_path / "results.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "no half-written file is left"
    check_form(example, stored, ARMS, seeds=2)
    for arm in ARMS:
        assert all(one["accuracy"] > 0.5 for one in example.best(stored["runs"], arm)), arm
    trained = {arm: example.best(stored["runs"], arm)[0]["trained"] for arm in ARMS}
    assert trained["lora"] == trained["pissa"] == 2 * 2 * (WIDTH + 24)
    assert trained["sorsa"] == trained["pissa"] + 2 * 2
    assert trained["full"] == sum(one.numel() for one in Encoder().parameters())
    lines = example.table(stored["runs"]).splitlines()
    assert [line.split()[0] for line in lines] == ["arm", *ARMS]
    first = {name: one for name, one in stored["runs"].items() if one["seed"] == 0}
    begun = {name: one for name, one in stored["runs"].items() if name == "full lr=0.001 seed=1"}
    assert example.table(first | begun) == example.table(first), "a seed counts once all of its runs are done"


def test_a_stopped_comparison_goes_on_with_the_same_numbers(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    whole = quick(example, path, epochs=1)
    lost = "pissa lr=0.01 seed=1"
    path.write_text(json.dumps(whole | {"runs": {key: one for key, one in whole["runs"].items() if key != lost}}))
    capsys.readouterr()
    again = quick(example, path, epochs=1)
    assert capsys.readouterr().out.count("accuracy") == 1, "only the run that is missing is repeated"
    times = {"seconds": 0.0}
    assert again["runs"][lost] | times == whole["runs"][lost] | times
    other = quick(example, path, epochs=2)
    assert capsys.readouterr().out.count("accuracy") == 16, "runs of other settings are not these"
    assert other["settings"]["epochs"] == 2


def test_a_merge_that_is_not_exact_is_refused(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = example.change

    def wrong(one: object, begin: Tensor) -> tuple[Tensor, Tensor]:
        a, b = right(one, begin)
        return a, 1.5 * b

    monkeypatch.setattr(example, "change", wrong)
    settings = example.Settings(rank=2, epochs=1, batch_size=8, classes=3, adapted=LAYERS)
    with pytest.raises(RuntimeError, match="pissa was not merged exactly"):
        example.run(Encoder(), WIDTH, splits_of(0), "pissa", 1e-2, 0, settings)


def test_the_stored_results_have_the_form_of_a_whole_comparison(example: ModuleType) -> None:
    stored = json.loads(example.RESULTS.read_text())
    check_form(example, stored, example.ARMS, seeds=len(example.SEEDS))
    assert stored["settings"] == vars(example.Settings()) | {"adapted": list(example.ADAPTED)}
    assert 3 <= len(example.SEEDS) <= 5
    assert len(example.table(stored["runs"]).splitlines()) == 1 + len(example.ARMS)


def check_form(example: ModuleType, stored: dict, arms: dict[str, tuple[float, ...]], seeds: int) -> None:
    assert set(stored) == {"settings", "versions", "runs"}
    assert len({len(rates) for rates in arms.values()}) == 1, "every arm has as many candidates"
    cells = [(arm, rate, seed) for seed in range(seeds) for arm, rates in arms.items() for rate in rates]
    assert [(one["arm"], one["rate"], one["seed"]) for one in stored["runs"].values()] == cells
    for one in stored["runs"].values():
        assert 0.0 <= one["accuracy"] <= 1.0
        assert 0.0 <= one["validation"] <= 1.0
        assert one["trained"] > 0
        assert 0.0 <= one["merged"] <= example.EXACT
        assert 0.0 <= one["unmerged"] <= example.EXACT
        assert (one["unmerged"] > 0.0) == (one["arm"] != "full"), "something was trained, and taken off to rounding"


def test_the_names_of_adapted_weights_are_those_of_the_real_encoder(example: ModuleType) -> None:
    transformers = pytest.importorskip("transformers", reason="the real encoder's architecture is in transformers")
    settings = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    model = example.Classifier(transformers.BertModel(settings), WIDTH, classes=3)
    chosen = [one.name for one in example.select(model, example.ADAPTED)]
    assert len(chosen) == 2 * 6
    assert not any("embed" in name or "pooler" in name for name in chosen)
