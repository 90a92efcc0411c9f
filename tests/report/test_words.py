"""Numbers and names as words."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.report import words


@pytest.mark.parametrize(
    ("share", "decimals", "expected"),
    [(0.94, 0, "94"), (0.9996, 0, "99.96"), (1.0, 0, "100"), (0.0, 0, "0"), (0.0004, 0, "0.04"), (0.8802, 1, "88.0"), (None, 0, "–")],
)
def test_percent_never_rounds_to_all_or_nothing(share: float | None, decimals: int, expected: str) -> None:
    assert words.percent(share, decimals) == expected


def test_decimals_follow_the_interval() -> None:
    assert words.between((0.886, 0.969)) == "89–97"
    assert words.between((0.8736, 0.8864), " to ") == "87.4 to 88.6"
    assert words.between(None) == ""


def test_headline_is_a_sentence() -> None:
    test = {"n": 150, "accuracy": 0.94, "accuracy_ci95": [0.8897, 0.9681]}
    assert words.headline(test) == (
        "141 of 150 test photos right: 94\u00a0%, and 89 to 97\u00a0% is what the true accuracy plausibly is; "
        "about 450 more test photos would halve that range."
    )
    assert words.headline({}) is None
    assert words.headline({"n": 0, "accuracy": None}) is None


def test_a_command_line_breaks_between_its_options_only() -> None:
    line = words.command("headstart predict 'a <b>' photo.jpg --top 3 --set tune=if-it-pays --corrections /a/very/long/path/of/some.csv")
    assert re.findall('<span class="option">(.*?)</span>', line) == ["--top 3", "--set tune=if-it-pays", "--corrections"]


@given(st.lists(st.text(max_size=9) | st.sampled_from([" ", "-", "--", " --top 3", "'"]), max_size=9).map("".join))
def test_a_command_line_stays_what_it_is(text: str) -> None:
    assert html.unescape(words.command(text).replace('<span class="option">', "").replace("</span>", "")) == words.visible(text)


def test_confusions_are_ranked_by_photos_then_share() -> None:
    test = {"confusion": {"labels": ["a", "b", "c"], "counts": [[5, 2, 0], [1, 20, 2], [0, 0, 9]]}}
    found = [(each.label, each.predicted, each.n, each.n_label) for each in words.confusions(test)]
    assert found == [("a", "b", 2, 7), ("b", "c", 2, 23), ("b", "a", 1, 23)]
    assert words.confusions({"confusion": {"labels": ["a"], "counts": [[1, 2]]}}) == []


@given(st.text())
def test_names_are_escaped_and_their_text_survives_where_it_is_short(text: str) -> None:
    shown = words.name(text, 10_000)
    assert shown.startswith("<bdi>")
    inside = shown.removeprefix("<bdi>").removesuffix("</bdi>")
    assert "<" not in inside
    assert ">" not in inside
    assert shown.removeprefix("<bdi>").removesuffix("</bdi>").unescape() == words.visible(text)


@given(st.text())
def test_visible_text_is_one_line_and_utf8(text: str) -> None:
    shown = words.visible(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_long_names_keep_their_ends() -> None:
    shown = words.name("begin" + "x" * 100 + "end")
    assert ">beginxxx" in shown
    assert "xxxend</bdi>" in shown
    assert len(shown.split(">")[1].split("<")[0]) == 48
