import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headstart.data import facts, pixels
from headstart.data.facts import Facts, FactsCache

KEY = bytes(range(32))
CAT = Facts("JPEG", 640, 480, "RGB", "2024-05-31T16:20:07", "Canon EOS 80D", "0a" * 8, bytes(range(256)) * 4)
BROKEN = Facts(reason="truncated")


def test_facts_outlive_the_process_that_found_them(tmp_path):
    path = tmp_path / "deep" / "facts.sqlite"
    with FactsCache(path) as known:
        known.add(KEY, CAT)
        known.add(KEY[::-1], BROKEN)
        assert known.find(KEY) == CAT
    with FactsCache(path) as known:
        assert (known.find(KEY), known.find(KEY[::-1]), known.find(bytes(32))) == (CAT, BROKEN, None)
        assert known.notices == []


@pytest.mark.parametrize(("module", "name"), [(pixels, "DECODER"), (facts, "VERSION")])
def test_another_decoder_or_meaning_knows_nothing(tmp_path, monkeypatch, module, name):
    with FactsCache(tmp_path / "f") as known:
        known.add(KEY, CAT)
    monkeypatch.setattr(module, name, 99 if name == "VERSION" else "another")
    with FactsCache(tmp_path / "f") as known:
        assert known.find(KEY) is None


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + bytes(4000), None])
def test_a_damaged_file_is_thrown_away_with_a_notice(tmp_path, damage):
    path = tmp_path / "facts.sqlite"
    if damage is None:  # of another form
        with sqlite3.connect(path) as database:
            database.execute(f"CREATE TABLE {facts._TABLE} (a)")
        database.close()
    else:
        path.write_bytes(damage)
    with FactsCache(path) as known:
        assert known.find(KEY) is None
        known.add(KEY, CAT)
    assert len(known.notices) == 1
    assert "was damaged and has been started anew" in known.notices[0]
    with FactsCache(path) as known:
        assert known.find(KEY) == CAT


def test_facts_of_an_older_version_are_let_go_without_a_word(tmp_path):
    path = tmp_path / "facts.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE facts (key BLOB PRIMARY KEY, format TEXT NOT NULL) WITHOUT ROWID")
        database.execute("INSERT INTO facts VALUES (?, 'JPEG')", (KEY,))
    database.close()
    with FactsCache(path) as known:
        assert known.find(KEY) is None
        known.add(KEY, CAT)
    assert known.notices == []
    with FactsCache(path) as known:
        assert known.find(KEY) == CAT


def test_damage_in_the_middle_of_a_scan_is_survived(tmp_path):
    path = tmp_path / "facts.sqlite"
    with FactsCache(path) as known:
        for i in range(3000):
            known.add(i.to_bytes(32, "big"), CAT)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with FactsCache(path) as known:
        assert known.find(KEY) is None
        known.add(KEY, CAT)
        assert known.find(KEY) == CAT
    assert len(known.notices) == 1
    assert "was damaged" in known.notices[0]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    with FactsCache(tmp_path / "file" / "facts.sqlite") as known:
        known.add(KEY, CAT)
        assert known.find(bytes(32)) is None
    assert len(known.notices) == 1
    assert "photos read now are not remembered" in known.notices[0]


def test_a_full_disk_is_survived(tmp_path):
    path = tmp_path / "facts.sqlite"
    with FactsCache(path) as known:
        assert known._database is not None
        known._database.execute("PRAGMA max_page_count = 2")  # SQLite's own way to be full
        for i in range(facts.ROWS_PER_COMMIT + 10):
            known.add(i.to_bytes(32, "big"), CAT)
    assert len(known.notices) == 1
    assert "database or disk is full" in known.notices[0]
    with FactsCache(path) as known:
        assert known.notices == []


def test_two_processes_write_at_once(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from headstart.data import facts
        facts.ROWS_PER_COMMIT = 10
        with facts.FactsCache(Path(sys.argv[1])) as known:
            for i in range(300):
                known.add(bytes([int(sys.argv[2])]) + i.to_bytes(31, "big"), facts.Facts("PNG", i, i))
        sys.exit(len(known.notices))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "facts.sqlite")]
    running = [subprocess.Popen([*command, str(which)]) for which in (1, 2)]
    assert [process.wait(60) for process in running] == [0, 0]
    with FactsCache(Path(command[-1])) as known:
        assert all(known.find(bytes([which]) + i.to_bytes(31, "big")) == Facts("PNG", i, i) for which in (1, 2) for i in range(300))
