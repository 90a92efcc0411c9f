"""The text that says how training views are made, such as `flip, rotate 15, zoom 0.2`: its grammar, its checks, its one canonical form.

A policy is a comma-separated list of operations, each a name and up to as many numbers as it takes; numbers left out are the defaults.
The order of the text means nothing: operations always apply in the order of `OPERATIONS`. What each does: docs/concepts/augmentation.md.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from headstart.errors import ConfigError, did_you_mean, safe_text

__all__ = ["OPERATIONS", "Argument", "Operation", "Step", "canonical", "check", "parse"]

Step = tuple[str, tuple[float, ...]]
"""An operation's name and all of its numbers."""


@dataclass(frozen=True)
class Argument:
    """One number of an operation. In an operation that starts with a strength, strength 0 means: leave the operation out."""

    meaning: str
    default: float
    least: float
    most: float
    whole: bool = False


@dataclass(frozen=True)
class Operation:
    """What a name in a policy stands for."""

    help: str
    arguments: tuple[Argument, ...] = ()


def _change(what: str) -> Operation:
    return Operation(f"{what} times a factor up to this far from 1, up or down", (Argument("change", 0.2, 0, 1),))


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "none": Operation("the centre view, unchanged; stands alone"),
        "crop-flip": Operation("short for `crop 0.35, flip`"),
        "crop": Operation("a part of the photo, 3:4 to 4:3, anywhere", (Argument("least share of the area", 0.35, 0.05, 1),)),
        "flip": Operation("left and right swapped for half of the views, at random; alone: in every other view of each photo"),
        "vflip": Operation("top and bottom swapped for half of the views, at random: only for photos without an upright, as from above"),
        "shear": Operation("slanted sideways by up to this angle, either way", (Argument("degrees", 10, 0, 45),)),
        "rotate": Operation("turned about the centre by up to this angle, either way", (Argument("degrees", 15, 0, 180),)),
        "zoom": Operation("enlarged or shrunk, 1 - zoom to 1 + zoom times", (Argument("zoom", 0.2, 0, 0.5),)),
        "shift": Operation(
            "moved across and down by up to this share of the view's side, either way", (Argument("share of the side", 0.1, 0, 0.5),)
        ),
        "randaugment": Operation(
            "so many operations drawn from a fixed list of 14, all of one magnitude",
            (Argument("operations", 2, 1, 10, whole=True), Argument("magnitude", 9, 0, 10)),
        ),
        "trivial": Operation("TrivialAugment: one operation drawn from the same list, with a magnitude drawn too"),
        "brightness": _change("brightness"),
        "contrast": _change("contrast"),
        "colour": _change("colour saturation"),
        "blur": Operation("Gaussian blur of up to this sigma", (Argument("px of the view", 1, 0, 10),)),
        "erase": Operation(
            "a rectangle of 2 to 33 % of the view replaced by noise, in this share of the views", (Argument("chance", 0.25, 0, 1),)
        ),
    }
)
"""Every operation, in the order in which they apply."""

_SHORT = {"crop-flip": (("crop", (0.35,)), ("flip", ()))}


def check(policy: str) -> None:
    """Whether `policy` can be used. Raises: ConfigError: all that is wrong with it, by number of the operation, with the nearest name."""
    parse(policy)


def canonical(policy: str) -> str:
    """The one text for all policies that mean the same: stored views are found again by it.

    >>> canonical("zoom 0.20,rotate, flip, blur 0")
    'flip, rotate 15, zoom 0.2'

    Raises: ConfigError: as `check`.
    """
    steps = parse(policy)
    for short, meaning in _SHORT.items():
        if steps == meaning:
            return short
    return ", ".join(" ".join([name, *map(_text, numbers)]) for name, numbers in steps) if steps else "none"


@functools.lru_cache(maxsize=256)
def parse(policy: str) -> tuple[Step, ...]:
    """The operations in the order in which they apply, every number given; none at all for `none`. Raises: ConfigError: as `check`."""
    problems: list[str] = []
    hint: str | None = None
    found: dict[str, tuple[float, ...]] = {}
    parts = policy.split(",")
    for position, part in enumerate(parts, start=1):
        try:
            for name, numbers in _operation(part):
                if name in found:
                    raise ConfigError(f"{name} is there twice")
                found[name] = numbers
        except ConfigError as error:
            where = f"operation {position} of '{safe_text(policy)}': " if len(parts) > 1 else ""
            problems.append(where + error.message)
            hint = error.hint if hint is None else hint
    if "none" in found and len(parts) > 1:
        problems.append(f"none stands alone, found it in '{safe_text(policy)}'")
    if problems:
        raise ConfigError("augmentation: " + "; ".join(problems), hint=hint)
    acting = {name: numbers for name, numbers in found.items() if name != "none" and not (numbers and numbers[0] == 0)}
    return tuple((name, acting[name]) for name in OPERATIONS if name in acting)


def _operation(text: str) -> tuple[Step, ...]:
    """One part of a policy between commas, as one step or, where it is short for several, those."""
    name, *words = text.split() or [""]
    if name not in OPERATIONS:
        found = repr(name) if name else "nothing"
        raise ConfigError(f"expected one of {', '.join(OPERATIONS)}, found {found}", hint=did_you_mean(name, OPERATIONS))
    arguments = OPERATIONS[name].arguments
    if len(words) > len(arguments):
        hint = "put a comma between operations" if any(word in OPERATIONS for word in words) else None
        most = "no number" if not arguments else f"{len(arguments)} number{'s' if len(arguments) > 1 else ''} at most"
        raise ConfigError(f"expected {most} after {name}, found {' '.join(words)!r}", hint=hint)
    if name in _SHORT:
        return _SHORT[name]
    given = tuple(_number(name, argument, word) for argument, word in zip(arguments, words, strict=False))
    return ((name, given + tuple(argument.default for argument in arguments[len(given) :])),)


def _number(name: str, argument: Argument, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not argument.least <= value <= argument.most or (argument.whole and value != int(value)):
        kind = "a whole number of" if argument.whole else "a number of"
        limits = f"{_text(argument.least)} to {_text(argument.most)}"
        raise ConfigError(f"expected {kind} {limits} for {name} ({argument.meaning}), found {word}")
    return value


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
