"""Whether to fine-tune, and how: the rule, on situations and costs made for it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.backbone import networks, weights
from headstart.data.scan import scan
from headstart.features import engine
from headstart.features.extract import Extractor
from headstart.features.store import Store
from headstart.train import survey
from headstart.train.average import Scored, averaged, can_average, choose, score
from headstart.train.plan import LADDER, Cost, Plan, Situation, against, plan
from headstart.train.survey import Sample
from headstart.train.task import Task
from samples import make_photos

FLOWERS = Situation(
    n_train=700,
    n_select=150,
    n_classes=5,
    per_class=140,
    fewest=130,
    evenness=1.0,
    n_right=760,
    n_answered=850,
    n_solved=850,
    n_missed=17,
    photo_px=240,
    input_px=224,
    norm="batch",
)
MANY = dataclasses.replace(FLOWERS, n_train=8_500, per_class=850, n_select=750)
TOP = Cost("layer3", px=224, load_s=0.002, trunk_s=0.02, live_s=0.05, step_s=0.01, forward_s=0.004, row_bytes=400_000)
HALF = Cost("layer2", px=224, load_s=0.002, trunk_s=0.02, live_s=0.03, step_s=0.05, forward_s=0.02, row_bytes=800_000, from_photos=1_000)
ALL = Cost("input", px=224, load_s=0.002, trunk_s=0.002, live_s=0.0, step_s=0.15, forward_s=0.05, row_bytes=150_000, from_photos=5_000)
COSTS = [TOP, HALF, ALL]


def _plan(
    situation: Situation = FLOWERS, costs: list[Cost] = COSTS, *, minutes: float = 10, room: int = 10**11, always: bool = False
) -> Plan:
    return plan(situation, lambda: costs, budget_s=60 * minutes, room_bytes=room, n_rows=1000, always=always)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"n_right": 845}, "about 1 of 150 val photos are wrong"),
        ({"n_train": 90}, "90 training photos"),
        ({"per_class": 12}, "12 in the median class, are too few"),
        ({"n_select": 20}, "20 val photos are too few"),
        ({"n_missed": 0}, "the head alone gets all of the 850 photos right that it was solved on"),
        ({"n_missed": 4}, "the head alone gets all but 4 of the 850 photos right that it was solved on"),
        ({"n_solved": 300, "n_missed": 2}, "all but 2 of the 300 photos"),
    ],
)
def test_fine_tuning_does_not_pay_where_no_gain_could_be_seen_or_learned(changed: dict[str, int], reason: str) -> None:
    def never() -> list[Cost]:
        raise AssertionError("nothing needs to be measured")

    found = plan(dataclasses.replace(FLOWERS, **changed), never, budget_s=600, room_bytes=10**11, n_rows=1000)
    assert (found.verdict, found.phases) == ("does not pay", ())
    assert reason in " ".join(found.why)


@pytest.mark.parametrize(("n_solved", "n_missed"), [(850, 5), (300, 3), (50_000, 5)])
def test_it_pays_where_the_head_misses_enough_of_its_own_photos(n_solved: int, n_missed: int) -> None:
    """Five, or of few photos one in a hundred; so 48 defects among 6,000 photos that the head overlooks are reason enough to go on."""
    assert against(dataclasses.replace(FLOWERS, n_solved=n_solved, n_missed=n_missed)) == ()
    assert len(against(dataclasses.replace(FLOWERS, n_solved=n_solved, n_missed=n_missed - 1))) == 1
    assert _plan(dataclasses.replace(FLOWERS, n_solved=n_solved, n_missed=0), always=True).phases


def test_where_nothing_is_wrong_nobody_is_told_that_more_photos_would_help() -> None:
    (reason,) = against(dataclasses.replace(FLOWERS, n_right=850, n_missed=0))
    assert "a gain could not be told from chance" in reason


def test_it_pays_where_nothing_speaks_against_it_and_the_top_stages_are_tuned_at_a_low_rate() -> None:
    found = _plan()
    (phase,) = found.phases
    assert found.verdict == "pays"
    assert "0.894 of photos it has not seen right (95 %: 0.872 to 0.913)" in found.why[0]
    assert (phase.cut, phase.epochs, phase.views) == ("layer3", *LADDER[0])
    assert phase.rate <= 1e-4
    assert found.estimate_minutes == pytest.approx(((1000 + 3 * 700) * 0.02 + 12 * (700 * 0.01 + 150 * 0.004)) / 60)


def test_opening_the_trunk_for_each_view_counts() -> None:
    slow = [dataclasses.replace(cost, export_s=30.0, open_s=2.0) for cost in COSTS]
    assert 60 * (_plan(FLOWERS, slow).estimate_minutes - _plan().estimate_minutes) == pytest.approx(30 + 3 * 2)  # four views
    assert _plan(MANY, slow, minutes=600).estimate_minutes == _plan(MANY, minutes=600).estimate_minutes  # nothing lies before `input`


def test_more_photos_train_more_of_the_network_as_far_as_the_budget_goes() -> None:
    assert _plan(MANY, minutes=600).phases[0].cut == "input"
    assert _plan(MANY, minutes=600).phases[0].views == 1  # drawn afresh at `input`
    assert _plan(MANY, minutes=60).phases[0].cut == "layer2"
    assert _plan(MANY, minutes=10).phases[0].cut == "layer3"


def test_photos_of_unequal_classes_count_for_less() -> None:
    """Of 8,500 photos, 8,100 in one class of two: labels that are mostly known beforehand tell as much as about 2,330 balanced ones."""
    uneven = dataclasses.replace(MANY, n_classes=2, per_class=4_250, fewest=400, evenness=0.275)
    found = _plan(uneven, minutes=600)
    assert (_plan(MANY, minutes=600).phases[0].cut, found.phases[0].cut) == ("input", "layer2")
    assert "(the smallest has 400) tell no more than 2338 of classes of equal size" in found.why[-1]
    assert "equal size" not in " ".join(_plan(dataclasses.replace(uneven, evenness=0.7), minutes=600).why)  # still worth 5,000
    assert "equal size" not in " ".join(_plan(uneven, minutes=10).why)  # the budget alone would have decided the same
    hopeless = dataclasses.replace(uneven, n_train=500, fewest=5, per_class=250, evenness=0.08)
    assert "tell no more than 40 of classes of equal size, too few" in against(hopeless)[0]


@pytest.mark.parametrize(
    ("photo_px", "input_px", "px"),
    [
        (32, 224, 128),
        (64, 224, 160),
        (8, 224, 128),
        (32, 299, 192),
        (80, 299, 224),
        (70, 224, 224),
        (32, 160, 160),
        (240, 224, 224),
        (0, 224, 224),
        (32, 256, 160),
        (32, 384, 224),
    ],
)
def test_photos_much_smaller_than_the_input_need_a_smaller_one(photo_px: int, input_px: int, px: int) -> None:
    assert dataclasses.replace(FLOWERS, photo_px=photo_px, input_px=input_px).enough_px == px


def test_small_photos_are_tuned_at_a_smaller_size_and_the_plan_says_so() -> None:
    small = dataclasses.replace(FLOWERS, photo_px=32)
    costs = [dataclasses.replace(cost, px=128) for cost in COSTS]
    found, as_published = _plan(small, costs), _plan(small)
    assert (found.phases[0].px, as_published.phases[0].px) == (128, None)
    assert found.why[-1] == "nine in ten photos have at most 32 px, so 128 px are enough to tune at, in place of 224"
    assert "32 px" not in as_published.in_words()  # the network takes no other size, or the user asked for this one
    more = 60 * (found.estimate_minutes - as_published.estimate_minutes)
    assert more == pytest.approx(700 * (TOP.trunk_s + TOP.forward_s))  # the features of a head at that size


@pytest.mark.parametrize(("counts", "evenness"), [((9, 9, 9), 1.0), ((25, 1, 1), 0.287), ((26, 0, 1), 0.144), ((27, 0, 0), 0.0)])
def test_how_even_the_classes_are_is_seen_in_the_training_photos(
    counts: tuple[int, ...], evenness: float, network: networks.Network, tmp_path: Path
) -> None:
    table = scan(make_photos(tmp_path / "photos", n=1))
    labels = np.repeat(table.classes, counts)
    photos = [dataclasses.replace(table.photos[0], path=f"{i}.png", label=str(label), split="train") for i, label in enumerate(labels)]
    task = Task(network, Extractor(table.with_photos(photos), Store(tmp_path), engine.Choice("torch", "cpu", "fp32")))
    situation = survey.situation_of(task, np.zeros((27, 3)), np.arange(27), (27, 9))
    assert situation.evenness == pytest.approx(evenness, abs=5e-4)


def test_a_plan_in_words_says_what_why_and_how_long() -> None:
    told = _plan().in_words()
    assert told.startswith("Fine-tuning is likely to pay: the head alone gets 0.894")
    assert told.endswith("it is tried, expected time 2.6 minutes")
    hopeless = dataclasses.replace(FLOWERS, n_right=850)
    assert _plan(hopeless).in_words().startswith("Fine-tuning is unlikely to pay: ")
    assert _plan(hopeless).in_words().endswith("; the head alone is kept")
    assert "it is tried all the same, expected time" in _plan(hopeless, always=True).in_words()
    assert dataclasses.replace(_plan(), recomputed=("no room",)).in_words().endswith("; no room")
    assert Plan("not tried", ()).in_words() == ""


def test_what_fits_no_budget_is_not_tried_and_the_estimate_says_what_it_would_take() -> None:
    found = _plan(minutes=0.5)
    assert (found.verdict, found.phases) == ("not tried", ())
    assert "the budget is 30 s" in found.why[-1]
    assert found.estimate_minutes is not None
    assert found.estimate_minutes > 0.5
    assert _plan(minutes=found.estimate_minutes * 1.01).phases


def test_views_that_the_store_has_no_room_for_are_not_planned_and_recomputing_is_counted() -> None:
    assert _plan(room=2 * 1000 * TOP.row_bytes).phases[0].views == 2
    stored, recomputed = _plan(room=1000 * TOP.row_bytes, minutes=60), _plan(room=0, minutes=60)
    assert stored.phases[0].views == recomputed.phases[0].views == 1
    assert recomputed.estimate_minutes > stored.estimate_minutes


def test_always_tries_what_is_unlikely_to_pay_but_never_without_val_photos() -> None:
    hopeless = dataclasses.replace(FLOWERS, n_right=850)
    assert not _plan(hopeless).phases
    found = _plan(hopeless, always=True)
    assert (found.verdict, len(found.phases)) == ("does not pay", 1)
    assert not _plan(dataclasses.replace(FLOWERS, n_select=0), always=True).phases


@given(
    st.integers(0, 20_000),
    st.integers(0, 3_000),
    st.integers(0, 900),
    st.floats(1, 7200),
    st.integers(0, 10**11),
    st.floats(0.001, 3),
    st.booleans(),
)
def test_a_plan_keeps_to_its_budget_and_comes_back_from_json(
    n_train: int, n_select: int, n_right: int, budget_s: float, room: int, slower: float, always: bool
) -> None:
    situation = dataclasses.replace(FLOWERS, n_train=n_train, per_class=n_train // 5, n_select=n_select, n_right=n_right, n_answered=900)
    costs = [dataclasses.replace(cost, step_s=slower * cost.step_s) for cost in COSTS]
    found = plan(situation, lambda: costs, budget_s=budget_s, room_bytes=room, n_rows=n_train + n_select, always=always)
    assert Plan.from_json(found.to_json()) == found
    assert found.phases == () or (found.estimate_minutes is not None and 60 * found.estimate_minutes <= budget_s)
    assert all(not phase.problems() for phase in found.phases)
    assert bool(against(situation)) == (found.verdict == "does not pay")
    assert found.why


def test_candidates_lie_before_the_top_quarter_half_and_all_stages(network: networks.Network) -> None:
    assert survey.candidates(network) == {"layer3": 0, "layer2": 1_000, "input": 5_000}


def test_a_network_cut_short_is_trained_as_a_whole_from_as_many_photos_on_as_any_other(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its top quarter and its top half are the same stage, so its costs are two, and the second is of the whole."""
    monkeypatch.setattr(survey, "MEASURE_S", 1e6)  # however busy the machine is
    short = networks.build(weights.locate(None, tiny_weights), stop="layer1")
    sample = Sample(np.zeros((4, 32, 32, 3), np.uint8), load_s=0.0, trunk_s=None, n_classes=3)
    costs = survey.measure_all(short, sample)
    assert [cost.cut for cost in costs] == ["conv1", "input"]
    cuts = [_plan(dataclasses.replace(MANY, n_train=n), costs, minutes=600).phases[0].cut for n in (700, 4_999, 5_000)]
    assert cuts == ["conv1", "conv1", "input"]


def test_costs_are_measured_on_real_steps_and_leave_the_network_alone(network: networks.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MEASURE_S", 1e6)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    sample = Sample(images, load_s=0.01, trunk_s=None, n_classes=3)
    costs = survey.measure_all(network, sample)
    assert [cost.cut for cost in costs] == ["layer3", "layer2", "input"]
    assert [cost.row_bytes for cost in costs] == [2 * 192 * 2 * 2, 2 * 48 * 4 * 4, 32 * 32 * 3]
    assert all(cost.step_s > 0 and cost.forward_s > 0 and cost.trunk_s >= cost.load_s for cost in costs)
    assert (costs[0].live_s > 0, costs[-1].live_s) == (True, 0.0)
    assert all((before[name] == tensor).all() for name, tensor in network.module.state_dict().items())


# -- choosing on val


def _logits(right: np.ndarray, margin: float | np.ndarray) -> np.ndarray:
    """[n, 2] for label 0: right where `right`, by `margin`."""
    return np.stack([np.where(right, margin, 0), np.where(right, 0, margin)], axis=1).astype(np.float32)


def test_a_clear_gain_is_taken_and_what_may_be_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(200, np.int64)
    probe, better = rng.random(200) < 0.8, rng.random(200) < 0.95
    luck = probe.copy()  # two more are right, one fewer
    luck[np.flatnonzero(~probe)[:2]] = True
    luck[np.flatnonzero(probe)[0]] = False
    of_probe = score(0.0, _logits(probe, 2.0), labels)
    assert choose([of_probe, score(1.0, _logits(better, 2.0), labels)]).alpha == 1.0
    assert choose([of_probe, score(1.0, _logits(luck, 2.0), labels)]).alpha == 0.0
    assert choose([of_probe, score(0.5, _logits(better, 2.0), labels), score(1.0, _logits(better, 2.0), labels)]).alpha == 0.5


def test_a_lower_loss_does_not_buy_a_lower_accuracy() -> None:
    labels = np.zeros(100, np.int64)
    of_probe = Scored(0.0, 0.9, np.full(100, 0.5))
    assert choose([of_probe, Scored(1.0, 0.89, np.full(100, 0.1))]).alpha == 0.0
    assert choose([of_probe, Scored(1.0, 0.90, np.full(100, 0.1))]).alpha == 1.0
    assert score(1.0, _logits(labels == 0, 1.0), labels).accuracy == 1.0


def test_a_candidate_near_the_best_by_chance_alone_is_not_taken_where_it_loses_to_the_probe() -> None:
    rng = np.random.default_rng(0)
    best = np.full(100, 0.3)
    wild = best + 0.2 + rng.normal(size=100) * 5  # so wild that its distance from the best may be chance
    wild += 0.5 - wild.mean()
    found = choose([Scored(0.0, 0.9, best + 0.1), Scored(0.5, 0.9, wild), Scored(1.0, 0.9, best)])
    assert found.alpha == 1.0


@given(st.floats(0.1, 10))
def test_the_score_does_not_depend_on_how_loud_the_logits_are(loudness: float) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    logits = (rng.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels]).astype(np.float32)
    assert score(1.0, loudness * logits, labels).loss == pytest.approx(score(1.0, logits, labels).loss, rel=1e-4)


def test_averages_need_the_same_tensors(network: networks.Network) -> None:
    from headstart.backbone import cut

    tail = cut.split(network, "layer3")[1]
    start, tuned = tail.with_head(3), tail.with_head(3)
    assert can_average(start, tuned)
    assert not can_average(start, tail.with_head(4))
    half = averaged(start, tuned, 0.5).state_dict()["classifier.weight"]
    np.testing.assert_allclose(half, (start.classifier.weight.detach() + tuned.classifier.weight.detach()) / 2, atol=1e-7)
