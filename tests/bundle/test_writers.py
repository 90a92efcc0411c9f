import csv
import dataclasses
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from headstart.bundle.predict import Prediction
from headstart.bundle.writers import FORMATS, write
from headstart.errors import ConfigError

CAT = Prediction("cat.jpg", 1, "tabby", "n02123045", 0.851, (("tabby", 0.851), ("tiger, striped", 0.1)), ("n02123045", None))
STRANGE = Prediction(
    "moon.jpg", 1, "tabby", None, 0.4, (("tabby", 0.4), ("roses", 0.3)), (None, None), known=False, labels=("tabby", "roses")
)
UNSURE = Prediction("u.jpg", 0, "roses", None, 0.5, (("roses", 0.5), ("a, b", 0.4)), (None, None), known=True, labels=("roses", "a, b"))
NO_TEXT = os.fsdecode(b'\xff,"\r\n.jpg') if sys.platform != "win32" else "odd"
BAD = Prediction("bad\n.jpg", reason="truncated")
ODD = Prediction(NO_TEXT, 0, "café\nau lait", None, 0.5, (("café\nau lait", 0.5),), (None,))


def test_one_photo_is_a_list_of_answers(capsys: pytest.CaptureFixture[str]) -> None:
    write(iter([CAT]), format="table", top=2)
    assert capsys.readouterr().out == "1: tabby (n02123045) 0.85\n2: tiger, striped 0.10\n"
    write([BAD], format="table", top=2)
    assert capsys.readouterr().out == "bad\\n.jpg could not be read: truncated\n"


def test_none_of_these_and_the_labels_it_may_be_are_told_of_one_photo(capsys: pytest.CaptureFixture[str]) -> None:
    write([STRANGE], format="table", top=2)
    told = "none of these: it looks like no class that the model knows; the nearest are\n1: tabby 0.40\n2: roses 0.30\n"
    assert capsys.readouterr().out == told
    write([UNSURE], format="table", top=2)
    assert capsys.readouterr().out == "1: roses 0.50\n2: a, b 0.40\none of roses, a, b\n"


def test_none_of_these_stands_beside_the_nearest_answer_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    write([CAT, STRANGE, UNSURE, BAD], format="table", top=2)
    assert capsys.readouterr().out.splitlines() == [
        "cat.jpg    tabby (n02123045) 0.85      tiger, striped 0.10",
        "moon.jpg   none of these (tabby 0.40)  roses 0.30",
        "u.jpg      roses 0.50                  a, b 0.40            one of roses, a, b",
        "bad\\n.jpg  could not be read: truncated",
    ]


def test_a_set_of_many_labels_is_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    many = tuple(f"class {i}\n" for i in range(30))
    write([Prediction("m.jpg", 0, many[0], None, 0.1, ((many[0], 0.1),), (None,), known=True, labels=many)], format="table", top=1)
    shown = ", ".join(f"class {i}\\n" for i in range(5))
    assert capsys.readouterr().out == f"1: class 0\\n 0.10\none of {shown} and 25 more\n"


def test_programs_read_both_too(tmp_path: Path) -> None:
    write([STRANGE, CAT], format="csv", out=tmp_path / "a.csv", top=2)
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        header, strange, cat = csv.reader(file)
    assert header[-2:] == ["known", "labels"]
    assert (strange[-2], json.loads(strange[-1])) == ("false", ["tabby", "roses"])
    assert cat[-2:] == ["", ""]
    write([UNSURE, CAT], format="parquet", out=tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert (table["known"].to_pylist(), table["labels"].to_pylist()) == ([True, None], [["roses", "a, b"], []])
    write([UNSURE], format="json", out=tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))[0]["labels"] == ["roses", "a, b"]


def test_several_photos_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    write([CAT, BAD], format="table", top=2)
    lines = ["cat.jpg    tabby (n02123045) 0.85  tiger, striped 0.10", "bad\\n.jpg  could not be read: truncated"]
    assert capsys.readouterr().out.splitlines() == lines


def test_columns_are_aligned_beside_letters_that_are_twice_as_wide(capsys: pytest.CaptureFixture[str]) -> None:
    cat = dataclasses.replace(CAT, path="猫.jpg", top=(("三毛猫", 0.85), ("e\u0301", 0.1)), top_ids=(None, None))
    write([cat, dataclasses.replace(CAT, path="cat.jpg", top_ids=(None, None))], format="table", top=2)
    assert capsys.readouterr().out.splitlines() == [
        "猫.jpg   三毛猫 0.85  e\u0301 0.10",
        "cat.jpg  tabby 0.85   tiger, striped 0.10",
    ]


def test_a_table_fits_a_terminal_that_knows_few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write([ODD], format="table")
    sys.stdout.flush()
    assert raw.getvalue().decode("ascii").splitlines() == ["1: caf\\xe9\\nau lait 0.50"]


def test_json_is_a_list_of_objects(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write([CAT, BAD, ODD], format="json", out=tmp_path / "a.json")
    values = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert values[0] == CAT.to_json()
    assert (values[1]["path"], values[1]["label"], values[1]["reason"]) == ("bad\n.jpg", None, "truncated")
    assert values[2]["label"] == "café\nau lait"
    write([], format="json")
    assert json.loads(capsysbinary.readouterr().out) == []


def test_csv_has_the_same_columns_in_every_row(tmp_path: Path) -> None:
    write([CAT, BAD, ODD], format="csv", out=tmp_path / "a.csv", top=3)
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        header, cat, bad, odd = csv.reader(file)
    assert header[:6] == ["path", "index", "label", "id", "probability", "reason"]
    assert header[6:] == ["label_2", "id_2", "probability_2", "label_3", "id_3", "probability_3", "known", "labels"]
    assert cat == ["cat.jpg", "1", "tabby", "n02123045", "0.851", "", "tiger, striped", "", "0.1", *[""] * 5]
    assert bad == ["bad\n.jpg", "", "", "", "", "truncated", *[""] * 8]
    assert odd[2] == "café\nau lait"


def test_parquet_keeps_kinds_and_order(tmp_path: Path) -> None:
    write([CAT, BAD, ODD], format="parquet", out=tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["path", "index", "label", "id", "probability", "top", "reason", "known", "labels"]
    assert table["index"].to_pylist() == [1, None, 0]
    assert table["top"].to_pylist()[0][1]["label"] == "tiger, striped"
    assert table["probability"].to_pylist()[0] == pytest.approx(0.851)


@pytest.mark.skipif(sys.platform == "win32", reason="every name is Unicode there")
@pytest.mark.parametrize("format", FORMATS)
def test_a_name_that_is_no_text_becomes_its_escape_in_every_format(tmp_path: Path, format: str) -> None:
    write([ODD, ODD], format=format, out=tmp_path / "out")
    if format == "parquet":
        assert pyarrow.parquet.read_table(tmp_path / "out")["path"][0].as_py() == '\\udcff,"\r\n.jpg'
    else:
        assert "\\udcff" in (tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_appears_only_when_it_is_complete(tmp_path: Path, format: str) -> None:
    def interrupted() -> Iterator[Prediction]:
        yield CAT
        yield BAD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), format=format, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_many_rows_need_no_more_memory(tmp_path: Path, format: str) -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        write((CAT for _ in range(n)), format=format, out=tmp_path / "out")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = (20_000, 30_000) if format == "parquet" else (300, 3_000)  # two row groups are alive while the second fills
    peak(few)
    assert peak(many) < 1.1 * peak(few) + 50_000


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_programs_read_from_stdout_what_a_file_would_hold(tmp_path: Path, format: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write([CAT, BAD], format=format, out=tmp_path / "out")
    write([CAT, BAD], format=format)
    assert capfdbinary.readouterr().out == (tmp_path / "out").read_bytes()


def test_unknown_formats_and_absent_libraries_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a format of table, json, csv, parquet, found 'jsn'") as caught:
        write([CAT], format="jsn")
    assert caught.value.hint == "did you mean 'json'?"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="format 'parquet' needs pyarrow") as caught:
        write([CAT], format="parquet", out=tmp_path / "out")
    assert caught.value.hint == "pip install 'headstart[parquet]'"
