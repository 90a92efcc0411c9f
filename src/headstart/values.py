"""Plain values (of TOML, JSON) into frozen dataclasses, and every problem of theirs in one error."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from headstart.errors import ConfigError, did_you_mean


class Table(Protocol):
    """A dataclass of keys. `elsewhere`: what people look for in it and find in another table, with a hint."""

    elsewhere: ClassVar[Mapping[str, str]]

    def problems(self) -> list[str]:
        """Keys that are in order one by one and do not go together."""
        ...


T = TypeVar("T", bound=Table)


def key(
    default: Any, help: str, *, least: float | None = None, most: float | None = None, check: Callable[[str], object] | None = None
) -> Any:
    """A dataclass field with its meaning; for numbers and lists and tables of them, the range of each; for text, what refuses it."""
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "most": most, "check": check})


def true_of(*claims: tuple[bool, str]) -> list[str]:
    """The texts of the claims that hold."""
    return [text for holds, text in claims if holds]


def build(kind: type[T], value: Any, where: str) -> T:
    """Turn plain `value` into the dataclass `kind`, checking names, types, ranges and, by its `problems()`, what goes together.

    Args: where: the table's place, for messages: "", or such as `phases.0.`
    Raises: ConfigError: all problems in one text.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        name = f"'{where[:-1]}'" if where else "the configuration"
        raise ConfigError(
            f"expected a table of keys for {name}, found {value!r}", hint=f"name one of its keys: {where}{next(iter(fields))}, ..."
        )
    hints = typing.get_type_hints(kind)
    problems: list[str] = []
    hint: str | None = None
    made: dict[str, Any] = {}
    for name, given in value.items():
        if name not in fields:
            hint = hint if hint is not None else kind.elsewhere.get(name, did_you_mean(name, fields))
            problems.append(f"unknown key '{where}{name}' (known: {', '.join(fields)})")
            continue
        try:
            if fields[name].metadata["check"] is not None and isinstance(given, int | float):
                given = str(given)  # its check says more of what is wrong with a bare number than that it is no text
            made[name] = _convert(hints[name], given, f"{where}{name}")
            _check_value(made[name], fields[name].metadata, f"{where}{name}")
        except ConfigError as error:
            problems.append(error.message)
            hint = hint if hint is not None else error.hint
    if problems:
        raise ConfigError("; ".join(problems), hint=hint)
    built = kind(**made)
    if problems := built.problems():
        place = f"{where[:-1]}: " if where else ""
        raise ConfigError("; ".join(f"{place}{problem}" for problem in problems))
    return built


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested plain values, with names such as `phases.0.cut`."""
    if isinstance(value, Mapping):
        inside: Any = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        inside = enumerate(value)
    else:
        yield name, str(value)
        return
    for part, item in inside:
        yield from flat(item, f"{name}.{part}" if name else str(part))


def _check_value(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    """Whether a value of the right type is in its range, or is text that its key can use. Raises: ConfigError."""
    least, most, check = metadata["least"], metadata["most"], metadata["check"]
    if check is not None:
        try:
            check(value)
        except ConfigError as error:
            raise ConfigError(f"'{where}': {error.message}", hint=error.hint) from None
    if value is None or (least is None and most is None):
        return
    if isinstance(value, tuple | dict):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_value(item, metadata, f"{where}.{name}")
        return
    if (least is not None and value < least) or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise ConfigError(f"expected {expected} for '{where}', found {value}")


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass, Literal, tuple, dict with names, union with None, or a plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast("type[Any]", kind), value, f"{where}.")
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(
                f"expected {' or '.join(map(str, arguments))} for '{where}', found {value!r}", hint=did_you_mean(str(value), arguments)
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"expected a list for '{where}', found {value!r}")
        return tuple(_convert_each(arguments[0], enumerate(value), where))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"expected a table for '{where}', found {value!r}")
        if nested := [name for name, item in value.items() if isinstance(item, Mapping)]:
            raise ConfigError(
                f"expected {arguments[1].__name__} for '{where}.{nested[0]}', found a table",
                hint=f'put names with a dot in quotes: {{"{nested[0]}.{next(iter(value[nested[0]]), 0)}" = ...}}',
            )
        return dict(zip(value, _convert_each(arguments[1], value.items(), where), strict=True))
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(arguments[0], value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if kind is str and isinstance(value, Path):
        return str(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"expected {kind.__name__} for '{where}', found {value!r}")
    return value


def _convert_each(kind: Any, values: Iterable[tuple[Any, Any]], where: str) -> list[Any]:
    """Each of `values`, which come with their index or name, as `kind`; the problems of all in one error."""
    made, errors = [], []
    for name, item in values:
        try:
            made.append(_convert(kind, item, f"{where}.{name}"))
        except ConfigError as error:
            errors.append(error)
    if errors:
        hint = next((error.hint for error in errors if error.hint is not None), None)
        raise ConfigError("; ".join(error.message for error in errors), hint=hint)
    return made


def _finite(value: float, where: str) -> float:
    """NaN passes every comparison with a range, and nothing here means infinity."""
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"expected a finite number for '{where}', found {number}")
    return number
