"""Search spaces: what is written is what is drawn, and what cannot be is refused with the way out."""

from __future__ import annotations

import pytest

from tikhon.core.errors import TikhonError
from tikhon.tuning.space import LARGEST, Candidate, Range, read_rate, read_space


class Drawn:
    """Draws what it is told: of a range a share of the way in its own scale, of options by place."""

    def __init__(self, share: float = 0.0, place: int = 0) -> None:
        self.share, self.place, self.asked = share, place, {}

    def number(self, name, among):
        self.asked[name] = among
        if among.log:
            return among.low * (among.high / among.low) ** self.share
        return among.low + self.share * (among.high - among.low)

    def one_of(self, name, options):
        self.asked[name] = tuple(options)
        return options[min(self.place, len(options) - 1)]


def recipes(text: str, rate: float = 0.1) -> list[str]:
    return [candidate.recipe for _, candidate in read_space(text, rate).every()]


def test_a_number_is_found_by_its_logarithm_where_the_range_is_wide() -> None:
    space = read_space("l2(strength=1e-4..1e-2) + mixup(alpha=0.2..0.6)", 0.1)
    drawn = Drawn(share=0.5)
    assert space.draw(drawn) == Candidate("l2(strength=0.001)+mixup(alpha=0.4)", 0.1)
    assert drawn.asked == {"l2.strength": Range(1e-4, 1e-2), "mixup.alpha": Range(0.2, 0.6)}
    assert drawn.asked["l2.strength"].log
    assert not drawn.asked["mixup.alpha"].log
    assert not Range(-1.0, 100.0).log


def test_found_numbers_have_four_digits_and_stay_inside() -> None:
    among = Range(0.333333, 0.77777777)
    assert among.rounded(0.5123456) == 0.5123
    assert among.rounded(0.333334) == 0.333333
    assert among.rounded(0.7777777) == 0.77777777


def test_whole_arguments_get_whole_numbers() -> None:
    space = read_space("multi_sample_dropout(samples=2..8)", 0.1)
    drawn = Drawn(share=0.4)
    assert space.draw(drawn).recipe == "multi_sample_dropout(samples=4)"
    assert drawn.asked["multi_sample_dropout.samples"].whole
    with pytest.raises(TikhonError, match=r"samples=.*whole numbers"):
        read_space("multi_sample_dropout(samples=2..8.5)", 0.1)


def test_optional_methods_alternatives_and_values_are_choices() -> None:
    assert recipes("elr + mixup?") == ["elr+mixup", "elr"]
    assert recipes("(elr | gce)") == ["elr", "gce"]
    assert recipes("(elr | none)") == ["elr", "none"]
    assert recipes("elr?") == ["elr", "none"]
    assert recipes("mixup(alpha={0.2, 0.4})") == ["mixup(alpha=0.2)", "mixup(alpha=0.4)"]
    assert recipes("elr + mixup | l2") == ["elr+mixup", "l2"]
    assert recipes("(elr | gce)? + mixup?") == ["elr+mixup", "elr", "gce+mixup", "gce", "mixup", "none"]
    assert recipes("(elr + mixup)?") == ["elr+mixup", "none"]


def test_given_arguments_stay_as_they_are() -> None:
    assert recipes("l2(strength=linear(0, 0.001)) + swa(start=0.5..0.9, every='step')") == [
        "l2(strength=linear(0, 0.001))+swa(start=0.7, every='step')"
    ]
    with pytest.raises(TikhonError, match=r"'a\?b\.\.c#1\.\.2'"):  # text is text
        read_space("swa(every='a?b..c#1..2')", 0.1)


def test_the_learning_rate_is_a_place_like_others() -> None:
    space = read_space("none", read_rate("0.01..0.2"))
    assert space.draw(Drawn(share=1.0)) == Candidate("none", 0.2)
    assert space.all_points() is None
    assert read_rate("0.3") == 0.3
    assert read_rate(" 1e-3 .. 1e-1 ") == Range(1e-3, 1e-1)
    assert read_space("mixup? + (elr | gce)", 0.1).all_points() == [
        {"mixup": "with", "elr | gce": "elr"},
        {"mixup": "with", "elr | gce": "gce"},
        {"mixup": "without", "elr | gce": "elr"},
        {"mixup": "without", "elr | gce": "gce"},
    ]


def test_a_file_holds_the_same_on_several_lines(tmp_path) -> None:
    file = tmp_path / "recipes.txt"
    file.write_text("# of our project\nelr(strength=1..10)   # how strong?\n+ mixup?\n")
    space = read_space(str(file), 0.1)
    assert space == read_space("elr(strength=1..10) + mixup?", 0.1)
    assert space.methods == ["elr", "mixup"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "space is empty"),
        ("elr(", "is no space of recipes"),
        ("elr - mixup", "write a method as name"),
        ("elrr(strength=1..3)", "Did you mean 'elr'"),
        ("elr(strenth=1..3)", "strenth"),
        ("l2(strength=-1..1)", "strength"),
        ("mixup(alpha=0.2..-1)", "low < high"),
        ("l2(strength=linear(0, 0.1..1))", "whole argument"),
        ("mixup(alpha={0.2})", "two or more different values"),
        ("elr(strength=1..3) | elr(strength=5..9)", "two alternatives are the same"),
        ("(elr(strength=1..3) + l2) | (elr(strength=1..9) + mixup)", "open in two places"),
    ],
)
def test_what_is_no_space_is_refused(text: str, words: str) -> None:
    with pytest.raises(TikhonError) as refusal:
        read_space(text, 0.1)
    assert words in str(refusal.value)


def test_a_space_of_too_many_recipes_is_refused() -> None:
    text = " + ".join(f"(l2(strength={{{', '.join(str(one) for one in range(1, LARGEST + 2))}}}))" for _ in range(1))
    with pytest.raises(TikhonError, match=f"more than {LARGEST} sets"):
        read_space(text, 0.1)


@pytest.mark.parametrize("text", ["-0.1", "fast", "0.1..0.01", "0..1", "0.1,0.2"])
def test_what_is_no_learning_rate_is_refused(text: str) -> None:
    with pytest.raises(TikhonError):
        read_rate(text)
