"""The certificate of an export: what was compared with what, on which photos and machine, and what came out. For programs and people."""

import dataclasses
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.exporting.compared import Way
from headstart.exporting.speed import ratio
from headstart.files import atomic_file, human_bytes, write_json

CERTIFICATE_FILE, PAGE_FILE = "certificate.json", "CERTIFICATE.md"
WORTH = 1.1
"""times as fast as the original: below, an int8 network is called no gain in speed"""


@dataclass(frozen=True)
class Rates:
    """Images a second of a network in one engine, without decoding: in each of the rounds in which all took turns."""

    network: str  # "original" or "export"
    engine: str
    provider: str
    precision: str
    images_per_s: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.images_per_s)


@dataclass(frozen=True)
class Certificate:
    """That an export answers as its original does, in figures.

    opset: of ONNX. ways: each way to run it here. original_accuracy: null without labelled photos. bytes: of the network's files.
    refused: sentences; none where the export may be kept.
    """

    model: str
    format: str
    int8: bool
    made: str
    photos: str
    n_calibrate: int
    ways: tuple[Way, ...]
    original_accuracy: float | None
    rates: tuple[Rates, ...]
    original_bytes: int
    export_bytes: int
    files: dict[str, str]
    versions: dict[str, str | None]
    opset: int | None
    notices: tuple[str, ...]
    refused: tuple[str, ...]
    processor: str = dataclasses.field(default_factory=lambda: processor())

    def gains(self) -> dict[str, float]:
        """Provider to how many times as fast the export is there as the original is in the fastest precision that it has there."""
        found = {}
        for provider in dict.fromkeys(one.provider for one in self.rates if one.network == "export"):
            old, new = (self._fastest(network, provider) for network in ("original", "export"))
            if old is not None and new is not None:
                found[provider] = ratio(old.images_per_s, new.images_per_s)
        return found

    def gain(self) -> float:
        """The same, of the fastest ways of both."""
        old, new = self._fastest("original"), self._fastest("export")
        return 1.0 if old is None or new is None else ratio(old.images_per_s, new.images_per_s)

    def _fastest(self, network: str, provider: str | None = None) -> Rates | None:
        some = [one for one in self.rates if one.network == network and provider in (None, one.provider)]
        return max(some, key=lambda one: one.median, default=None)

    def verdict(self) -> str:
        """What came out, in two or three sentences."""
        if self.refused:
            return "Refused. " + " ".join(self.refused)
        first = self.ways[0]
        words = [f"The export gives the same answer as the original for {first.n - first.n_differ} of {first.n} pictures."]
        if self.int8:
            words.append(self._speed())
        return " ".join(words)

    def _speed(self) -> str:
        old, new = self._fastest("original"), self._fastest("export")
        if old is None or new is None:
            return ""
        times, share = self.gain(), self.export_bytes / self.original_bytes
        figures = f"{new.median:.0f} images/s ({new.engine}) against {old.median:.0f} of the original ({old.engine}, {old.precision})"
        size = f"its size is {share:.2f} of the original's"
        if times >= WORTH:
            return f"int8 is {times:.1f} times as fast on this machine: {figures}; {size}."
        return f"int8 is no gain in speed on this machine, {times:.2f} times the original's: {figures}; {size}. For speed, leave int8 out."

    def to_json(self) -> dict[str, Any]:
        """Plain values for certificate.json."""
        ways = [{**dataclasses.asdict(way), "agreement": way.agreement} for way in self.ways]
        rates = [{**dataclasses.asdict(one), "median": one.median} for one in self.rates]
        more = {"certificate": 1, "verdict": self.verdict(), "gain": self.gain(), "gains": self.gains()}
        return {**more, **dataclasses.asdict(self), "ways": ways, "rates": rates}

    def lines(self) -> list[str]:
        """The figures, for a terminal."""
        rows = [["run by", "same answer", "largest difference", "accuracy", "drop (95 % interval)", ""]]
        for way in self.ways:
            drop = "–" if way.drop is None or way.drop_ci95 is None else _points(way.drop, way.drop_ci95)
            accuracy = "–" if way.accuracy is None else f"{way.accuracy:.3f}"
            cells = [f"{way.engine}, {way.precision}", f"{way.n - way.n_differ}/{way.n}", f"{way.largest_difference:.2g}", accuracy, drop]
            rows.append([*cells, "ok" if way.passed else "not kept"])
        return [*_aligned(rows), "", *_aligned(self._speeds()), "", self._size()]

    def _speeds(self) -> list[list[str]]:
        return [[one.network, f"{one.engine}, {one.precision}", f"{one.median:.1f} images/s"] for one in self.rates]

    def _size(self) -> str:
        return f"{human_bytes(self.export_bytes)} against {human_bytes(self.original_bytes)} of the original"

    def page(self) -> str:
        """CERTIFICATE.md."""
        what = f"{self.format}{'' if self.opset is None else f' opset {self.opset}'}, {'int8' if self.int8 else 'fp32'}"
        accuracy = "" if self.original_accuracy is None else f" The original's accuracy on them is {self.original_accuracy:.3f}."
        calibrated = f" Calibrated on {self.n_calibrate} other photos." if self.n_calibrate else ""
        rows = [
            ["run by", "same answer", "largest difference of a probability", "accuracy (95 % interval)", "accuracy lost", "bar", "passed"]
        ]
        for way in self.ways:
            accurate = "–" if way.accuracy is None or way.accuracy_ci95 is None else _share(way.accuracy, way.accuracy_ci95)
            drop = "–" if way.drop is None or way.drop_ci95 is None else _points(way.drop, way.drop_ci95)
            same = f"{way.n - way.n_differ} of {way.n}"
            run_by = f"{way.engine}, {way.precision}"
            rows.append(
                [run_by, same, f"{way.largest_difference:.2g}", accurate, drop, way.bar, "yes" if way.passed else f"no: {way.found}"]
            )
        parts = [f"# Certificate of an export: {_cell(self.model)}", self.verdict()]
        parts.append(f"Form: {what}. Made {self.made}. Compared on {_cell(self.photos)}, read from their files.{calibrated}{accuracy}")
        parts += ["## Answers", _table(rows), "## Speed", _table([["network", "run by", "median"], *self._speeds()])]
        parts.append(f"Without decoding, all in turns, {self.processor}. Size: {self._size()}.")
        if self.notices:
            parts += ["## Notes", "\n".join(f"- {_cell(one)}" for one in self.notices)]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items() if version is not None)
        digests = "\n".join(f"    {digest}  {name}" for name, digest in self.files.items())
        return "\n\n".join([*parts, "## Made with", versions, digests]) + "\n"


def write(certificate: Certificate, folder: Path) -> None:
    """certificate.json and CERTIFICATE.md in `folder`."""
    write_json(folder / CERTIFICATE_FILE, certificate.to_json())
    with atomic_file(folder / PAGE_FILE) as file:
        file.write(certificate.page())


def processor() -> str:
    """This machine's, for people: `AMD EPYC, 2 cores`."""
    from headstart.features.runtime import cores

    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name if name else platform.machine()}, {cores()} cores"


def _points(drop: float, ci95: tuple[float, float]) -> str:
    return f"{100 * drop:+.1f} points ({100 * ci95[0]:+.1f} to {100 * ci95[1]:+.1f})"


def _share(value: float, ci95: tuple[float, float]) -> str:
    return f"{value:.3f} ({ci95[0]:.3f} to {ci95[1]:.3f})"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
