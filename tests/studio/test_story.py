"""The whole story in a real browser: photos dropped, trained, a mistake relabelled, a new photo answered, the model taken along."""

import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from studio_tools import Running, jobs_of, until

from browser import Tab
from headstart.bundle.format import load_bundle
from samples import make_photos

Start = Callable[..., Running]
WAIT_S = 120.0
# htmx shows a new card some 20 ms before its buttons answer; nobody is that fast, but a test is.
SETTLED = "!document.querySelector('.htmx-added')"


def tell_story(tab: Tab, studio: Running, folder: Path, source: Path, new_photo: Path, pictures: Path | None = None) -> None:
    """Do what a person does, by mouse; `source` holds class folders to drop."""

    def look(name: str) -> None:
        assert_nothing_sticks_out(tab, name, pictures)

    tab.size(1280)
    tab.open(studio.link)
    base = tab.run("location.pathname").rstrip("/")
    home = f"http://127.0.0.1:{studio.port}{base}"
    assert tab.run("document.querySelector('h1').innerText") == "What should it tell apart?"

    # The first class by its name, its photos onto its card; the others as folders, dropped anywhere.
    classes = sorted(path.name for path in source.iterdir())
    tab.type("#name", classes[0])
    tab.press("Enter")
    tab.wait("document.querySelector('[data-drop]')")
    tab.drop("[data-drop]", sorted((source / classes[0]).iterdir()))
    n_first = len(list((source / classes[0]).iterdir()))
    tab.wait(f"document.querySelector('.class .upload')?.innerText.startsWith('{n_first} photos added')", WAIT_S)
    tab.drop("main", [source / name for name in classes[1:]])
    tab.wait(f"document.querySelectorAll('.class').length == {len(classes)}", WAIT_S)
    tab.wait(f"document.body.innerText.includes('{sum(1 for _ in source.rglob('*.*'))} photos in')", WAIT_S)
    look("photos")
    dropped = sorted(path.read_bytes() for path in source.rglob("*.*"))
    assert sorted(path.read_bytes() for path in folder.glob("*/*.*") if ".headstart" not in path.parts) == dropped

    tab.open(f"{home}/train")
    tab.click(".ways button")
    tab.wait("document.querySelector('#work progress')")
    look("training")
    tab.wait("document.querySelector('.run-state a')", WAIT_S)  # the page shows it by itself when it is done
    tab.click(".run-state a")
    tab.wait("document.querySelector('.big')")
    look("result")

    tab.open(f"{home}/labels")
    label = tab.run("document.querySelectorAll('.doubt-text b')[1].innerText")
    tab.click(".doubt .choices button")
    tab.wait(f"document.querySelector('.decided') && {SETTLED}")
    assert tab.run("document.activeElement.innerText").startswith("Undo")
    assert "1 label changed" in tab.run("document.querySelector('#pending').innerText")
    look("labels")
    tab.click(".decided button")
    tab.wait(f"!document.querySelector('#pending').innerText.includes('changed') && {SETTLED}")
    assert tab.run("document.querySelectorAll('.doubt-text b')[1].innerText") == label
    tab.click(".doubt .choices button")
    tab.wait("document.querySelector('#pending button')")
    tab.click("#pending button")
    until(lambda: len(jobs_of(folder)) == 2 and jobs_of(folder)[1]["answer"], WAIT_S)
    tab.wait("document.querySelector('#pending').innerText.includes('It has learned')", WAIT_S)
    until(lambda: jobs_of(folder)[1]["state"] == "done", WAIT_S)
    run = json.loads((folder / ".headstart" / "runs" / "0002" / "run.json").read_text())
    assert run["trunk"]["rows_computed"] == 0, "every row was stored"
    splits = [(folder / ".headstart" / "runs" / f"000{n}" / "split.csv").read_text().splitlines() for n in (1, 2)]
    assert sum(one != other for one, other in zip(*splits, strict=True)) == 1, "one label differs, and no split"

    tab.open(f"{home}/use")
    tab.drop("[data-try]", [new_photo])
    tab.wait("document.querySelectorAll('.bars li').length", WAIT_S)
    tab.wait("[...document.querySelectorAll('.tried img')].every(i => i.complete && i.naturalWidth > 0)", WAIT_S)
    look("use")
    said = tab.run("[...document.querySelectorAll('.bars li span')].map(e => e.innerText)")
    bundle = load_bundle(folder / ".headstart" / "runs" / "0002")
    assert said == [name for name, _ in bundle.predict(new_photo, top=5).top]

    path = tab.run("document.querySelector('a[download]').getAttribute('href')")
    studio.cookie = next(f"{each['name']}={each['value']}" for each in tab.send("Network.getCookies")["cookies"])
    with zipfile.ZipFile(io.BytesIO(studio.ask("GET", path)[2])) as archive:
        network = onnxruntime.InferenceSession(archive.read("model/model.onnx"))
        px = bundle.preprocessing.input_px
        (logits,) = network.run(["logits"], {"image": np.zeros((1, px, px, 3), np.uint8)})
        assert logits.shape == (1, len(classes))
        assert archive.read("labels.txt").decode().split("\n")[:-1] == classes

    assert tab.complaints() == []
    assert tab.hosts() == {f"127.0.0.1:{studio.port}"}


def assert_nothing_sticks_out(tab: Tab, name: str, pictures: Path | None) -> None:
    for width_px in (390, 1280):
        tab.size(width_px, touch=width_px < 600)
        assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (name, width_px)
        if pictures is not None:
            tab.picture(pictures / f"{name}-{width_px}.png", whole=True)


def test_the_whole_story_with_a_small_network(tab: Tab, start: Start, tmp_path: Path) -> None:
    source = make_photos(tmp_path / "source", n=8)
    # Two photos in the wrong folder, so that there is something to fix.
    for name, wrong in (("photo 0.jpg", "grün"), ("photo 2.jpg", "red")):
        shutil.move(source / "blue sky" / name, source / wrong / f"moved {name}")
    new = make_photos(tmp_path / "new", n=1, seed=5) / "red" / "photo 0.jpg"
    (tmp_path / "project").mkdir()
    tell_story(tab, start(tmp_path / "project"), tmp_path / "project", source, new)


def test_a_tab_that_is_not_seen_holds_no_connection_and_catches_up(tab: Tab, start: Start, tmp_path: Path) -> None:
    """A browser has six connections to a host: a seventh tab would wait for ever."""
    studio = start(make_photos(tmp_path / "project", n=4))
    tab.open(studio.link)
    base = tab.run("location.pathname").rstrip("/")
    studio.cookie = next(f"{each['name']}={each['value']}" for each in tab.send("Network.getCookies")["cookies"])
    tab.open(f"http://127.0.0.1:{studio.port}{base}/train")
    tab.wait("events?.readyState == EventSource.OPEN")
    seen = (
        "Object.defineProperty(document, 'hidden', {value: %s, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))"
    )
    tab.run(seen % "true")
    assert tab.run("events.readyState == EventSource.CLOSED")
    studio.post(f"{base}/jobs", kind="train")
    time.sleep(0.6)
    assert "Training" not in tab.run("document.querySelector('#work').innerText")
    tab.run(seen % "false")
    tab.wait("document.querySelector('#work').innerText.includes('Training')")
    tab.wait("document.querySelector('#runs')")
    assert tab.run("events.readyState == EventSource.OPEN")


@pytest.mark.slow
def test_the_whole_story_with_flowers_and_the_embedded_network(
    tab: Tab, start: Start, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("daisy", "roses", "tulips"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for path in sorted((shared / "data" / "flowers" / name).iterdir())[:40]:
            shutil.copy(path, tmp_path / "source" / name)
    new = sorted((shared / "data" / "flowers" / "daisy").iterdir())[100]
    (tmp_path / "project").mkdir()
    studio = start(tmp_path / "project", network=())
    tell_story(tab, studio, tmp_path / "project", tmp_path / "source", new, pictures=tmp_path)
    test = json.loads((tmp_path / "project" / ".headstart" / "runs" / "0002" / "metrics.json").read_text())["test"]
    assert test["accuracy"] > 1.4 * test["baseline_majority"]
