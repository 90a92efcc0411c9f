"""A policy is read, checked and brought to its one canonical text."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.policy import OPERATIONS, Argument, canonical, check, parse
from headstart.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "augmentation.md"
COMBINABLE = [name for name in OPERATIONS if name not in ("none", "crop-flip")]


def strength(argument: Argument) -> st.SearchStrategy[float]:
    if argument.whole:
        return st.integers(int(argument.least), int(argument.most))
    return st.floats(argument.least, argument.most)


@st.composite
def policies(draw: st.DrawFn) -> list[str]:
    """Operations of a valid policy, in any order, with any of their numbers."""
    names = draw(st.lists(st.sampled_from(COMBINABLE), min_size=1, unique=True))
    return [" ".join([name, *(repr(draw(strength(argument))) for argument in OPERATIONS[name].arguments)]) for name in names]


@given(policies(), st.randoms(use_true_random=False))
def test_order_and_spaces_mean_nothing_and_canonical_text_is_final(operations: list[str], random) -> None:
    text = canonical(", ".join(operations))
    assert canonical(text) == text
    assert parse(text) == parse(",".join(operations))
    random.shuffle(operations)
    assert canonical(" ,  ".join(operations)) == text


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", "none"),
        (" flip ", "flip"),
        ("rotate", "rotate 15"),
        ("rotate 15.0", "rotate 15"),
        ("brightness 2e-1, flip", "flip, brightness 0.2"),
        ("rotate 0, shift 0, blur 0, erase 0", "none"),
        ("zoom 0.0, flip", "flip"),
        ("crop-flip", "crop-flip"),
        ("flip, crop", "crop-flip"),
        ("rotate 10, crop-flip", "crop 0.35, flip, rotate 10"),
        ("randaugment 3", "randaugment 3 9"),
        ("trivial, crop 0.08", "crop 0.08, trivial"),
    ],
)
def test_one_text_for_each_meaning(policy: str, expected: str) -> None:
    assert canonical(policy) == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("rotate 500", r"expected a number of 0 to 180 for rotate \(degrees\), found 500$"),
        ("rotate -1", "0 to 180 for rotate .*found -1"),
        ("flip, zoom nan", "operation 2 of 'flip, zoom nan': expected a number of 0 to 0.5 for zoom .*found nan"),
        ("blur inf", "0 to 10 for blur .*found inf"),
        ("shift much", "0 to 0.5 for shift .*found much"),
        ("randaugment 1.5 9", "expected a whole number of 1 to 10 for randaugment .*found 1.5"),
        ("randaugment 0", "whole number of 1 to 10 for randaugment"),
        ("crop 0", "0.05 to 1 for crop"),
        ("flip, rotat 10", "operation 2 of .*expected one of none, crop-flip, .*found 'rotat'\nhint: did you mean 'rotate'"),
        ("color 0.2", "did you mean 'colour'"),
        ("flip 0.5", "expected no number after flip, found '0.5'$"),
        ("rotate 10 zoom 0.2", "expected 1 number at most after rotate, found '10 zoom 0.2'\nhint: put a comma"),
        ("rotate 5, flip, rotate 9", "operation 3 of .*rotate is there twice"),
        ("flip, crop-flip", "flip is there twice"),
        ("none, flip", "none stands alone"),
        ("", "found nothing"),
        ("flip,,vflip", "operation 2 of .*found nothing"),
    ],
)
def test_a_wrong_policy_is_refused_by_place_name_and_range(policy: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(policy)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"operation 1 .*found 500; operation 3 .*found 'flop'"):
        check("rotate 500, zoom 0.1, flop")


def test_a_line_break_in_a_policy_stays_inside_the_message() -> None:
    with pytest.raises(ConfigError) as error:
        check("fl\nip, x")
    assert "\n" not in error.value.message


def test_the_page_names_every_operation_with_its_numbers_and_range() -> None:
    rows = re.findall(r"^\| `([a-z-]+)[^|]*\|[^|]*\|[^|]*\|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == list(OPERATIONS)
    text = PAGE.read_text(encoding="utf-8")
    for name, operation in OPERATIONS.items():
        if operation.arguments:
            assert f"| `{name} {' '.join(f'{argument.default:g}' for argument in operation.arguments)}`" in text
            for argument in operation.arguments:
                assert f"{argument.least:g} to {argument.most:g}" in next(
                    line for line in text.splitlines() if line.startswith(f"| `{name} ")
                )
