"""The page at / in a real browser: photos chosen, dropped, taken with the webcam; keyboard, narrow windows, dark, hostile names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serve_tools import Running, Serve

from browser import Tab, new_tab
from bundle.tiny import PREPROCESSING, TinyNet
from headstart.bundle.export import build_bundle
from headstart.bundle.format import Bundle, Label, load_bundle

HOSTILE = ["<script>document.title='owned'</script>", "W" * 200, "عربى " * 20]
ANSWERED = "[...document.querySelectorAll('.answer')].every(one => one.textContent !== '…')"
READY = "!document.getElementById('about').hidden"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for this file: it takes seconds to start."""
    with new_tab(tmp_path_factory.mktemp("browser"), "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as tab:
        yield tab


@pytest.fixture
def page(tab: Tab) -> Tab:
    tab.events.clear()
    tab.size(1280)
    tab.prefers(color_scheme="light")
    return tab


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """A red photo, a green one, and a file that is none."""
    for name, colour in (("red.png", (200, 20, 20)), ("green.jpg", (10, 220, 30))):
        Image.new("RGB", (300, 200), colour).save(tmp_path / name)
    (tmp_path / "none.jpg").write_bytes(b"hello")
    return [tmp_path / name for name in ("red.png", "green.jpg", "none.jpg")]


def _open(page: Tab, running: Running) -> None:
    page.open(f"http://127.0.0.1:{running.port}/")
    page.wait(READY)


def _answers(page: Tab) -> list[str]:
    return page.run("[...document.querySelectorAll('.answer')].map(one => one.textContent.trim())")


def test_photos_that_are_chosen_are_answered_with_bars_and_a_bad_one_with_its_reason(
    page: Tab, running: Running, bundle: Bundle, photos: list[Path]
) -> None:
    _open(page, running)
    page.choose("#files", photos)
    page.wait(f"document.querySelectorAll('.result').length === 3 && {ANSWERED}")
    expected = bundle.predict(photos[:2], provider="onnxruntime")
    said = [f"{one.label} {round(100 * one.probability)} %" for one in expected]
    assert _answers(page) == [*said, "The photo cannot be read: not an image (text)."]
    widths = page.run("[...document.querySelector('.bars').querySelectorAll('.fill')].map(one => parseFloat(one.style.width) / 100)")
    assert widths == pytest.approx([probability for _, probability in expected[0].top], abs=1e-4)
    assert page.run("document.querySelector('.seen').naturalWidth") == 300
    assert page.hosts() == {f"127.0.0.1:{running.port}"}
    assert [one for one in page.complaints() if "status of 422" not in one] == []


def test_photos_can_be_dropped_anywhere(page: Tab, running: Running, photos: list[Path]) -> None:
    _open(page, running)
    page.drop("h1", photos[:2])
    page.wait(f"document.querySelectorAll('.result').length === 2 && {ANSWERED}")
    assert page.run("document.getElementById('status').getAttribute('role')") == "status"
    status = page.run("document.getElementById('status').textContent")
    assert status.startswith(("red.png: ", "green.jpg: ")), "of the one answered last: two are on their way at a time"


def test_a_photo_like_no_label_is_none_of_these(page: Tab, running: Running, bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    Image.new("RGB", (300, 200), (40, 40, 40)).save(path)
    prediction = bundle.predict(path, provider="onnxruntime")
    assert prediction.known is False, "the model's threshold calls it so"
    _open(page, running)
    page.choose("#files", [path])
    page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
    assert _answers(page) == ["None of these"]
    assert prediction.label in page.run("document.querySelector('.note').innerText")


def test_where_it_looked_is_shown_and_hidden_by_keyboard(page: Tab, running: Running, tmp_path: Path) -> None:
    pixels = np.full((200, 300, 3), 60, np.uint8)
    pixels[:100, 50:150, 0] = 250
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    _open(page, running)
    page.choose("#files", [tmp_path / "corner.png"])
    page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
    page.run("document.querySelector('.where').focus()")
    page.press("Enter")
    page.wait("document.querySelector('.where').getAttribute('aria-pressed') === 'true'")
    page.wait("document.querySelector('.heat').naturalWidth > 0 && document.querySelector('.heat').checkVisibility()")
    assert page.run("document.querySelector('.heat').alt").startswith("The photo in grey")
    assert "with the whole photo hidden" in page.run("document.querySelector('.heat-words').textContent")
    page.press("Enter")
    page.wait("document.querySelector('.heat').hidden && !document.querySelector('.seen').hidden")


def test_everything_is_reached_with_the_tab_key_and_has_a_name(page: Tab, running: Running, photos: list[Path]) -> None:
    _open(page, running)
    page.choose("#files", photos[:1])
    page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
    page.run("document.body.focus()")
    reached = []
    for _ in range(7):
        page.press("Tab")
        name = "document.activeElement.ariaLabel || document.activeElement.innerText"
        shown = "getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        reached.append(page.run(f"[{name}, {shown}]"))
    assert [name.strip() for name, _ in reached] == [
        "Choose photos",
        "Use the webcam",
        "Show where it looked in red.png",
        "Remove",
        "About this model",
        "For programs: addresses and formats",
        reached[-1][0].strip(),
    ]
    assert all(shown for _, shown in reached[:6]), "the focus is seen"
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "textbox", "image", "list", "region"}
    nameless = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles and not node.get("name", {}).get("value")]
    assert [node["role"]["value"] for node in nameless if node["role"]["value"] != "list"] == []


def test_a_photo_is_taken_with_the_webcam(page: Tab, running: Running) -> None:
    _open(page, running)
    page.run("document.getElementById('webcam').click()")
    page.wait("document.getElementById('video').videoWidth > 0 && !document.getElementById('viewfinder').hidden")
    page.run("document.getElementById('snap').click()")
    page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
    assert "%" in _answers(page)[0] or _answers(page) == ["None of these"]
    page.run("document.getElementById('stop').click()")
    assert page.run("document.getElementById('video').srcObject === null && document.getElementById('viewfinder').hidden")


def test_on_a_phone_the_camera_opens_and_nothing_sticks_out(page: Tab, running: Running, photos: list[Path]) -> None:
    for width_px in (360, 390, 768):
        page.size(width_px, 800, touch=True)
        _open(page, running)
        page.choose("#camera", photos[:1])
        page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
        assert page.run("document.documentElement.scrollWidth") == width_px
        assert page.run("document.getElementById('camera').getAttribute('capture')") == "environment"
        assert page.run("!document.getElementById('capture').hidden && document.getElementById('webcam').hidden")
        smallest = "Math.min(...[...document.querySelectorAll('button')].filter(b => b.checkVisibility()).map(b => b.offsetHeight))"
        assert page.run(smallest) >= 44, "large enough for a thumb"


def test_hostile_labels_are_text_and_stick_out_nowhere(page: Tab, serve: Serve, tmp_path: Path, photos: list[Path]) -> None:
    folder = tmp_path / "hostile"
    build_bundle(
        folder,
        module=TinyNet().eval(),
        labels=[Label(name) for name in HOSTILE],
        preprocessing=PREPROCESSING,
        temperature=1.0,
        provenance={},
        licence=None,
        conformal={"coverage": 0.9, "threshold": 0.0},
    )
    running = serve({"<b>bold</b>": load_bundle(folder), "other": load_bundle(folder)})
    for width_px in (360, 1280):
        page.size(width_px)
        _open(page, running)
        page.run("document.getElementById('about').open = true")
        page.choose("#files", photos[:2])
        page.wait(f"document.querySelectorAll('.result').length === 2 && {ANSWERED}")
        assert page.run("document.documentElement.scrollWidth") <= width_px
    assert page.run("document.title") == "<b>bold</b> · headstart"
    assert page.run("document.querySelectorAll('b, main script').length") == 0
    assert page.run("[...document.querySelectorAll('#model option')].map(one => one.value)") == ["<b>bold</b>", "other"]


def test_the_page_asks_for_the_token_once(page: Tab, serve: Serve, bundle: Bundle, photos: list[Path]) -> None:
    running = serve({"tiny": bundle}, token="a-token-for-this-test")
    page.open(f"http://127.0.0.1:{running.port}/")
    for token in ("wrong", "a-token-for-this-test"):
        page.wait("document.activeElement.id === 'token' && !document.getElementById('token-form').hidden")
        page.run(f"document.getElementById('token').value = {token!r}; document.querySelector('#token-form button').click()")
    page.wait(READY)
    page.choose("#files", photos[:1])
    page.wait(f"document.querySelectorAll('.result').length === 1 && {ANSWERED}")
    assert _answers(page)[0].startswith("tabby ")
    _open(page, running)  # the tab remembers
    page.run("sessionStorage.clear()")


def test_the_page_follows_light_and_dark_and_asks_for_no_motion(page: Tab, running: Running) -> None:
    _open(page, running)
    light = page.picture()
    page.prefers(color_scheme="dark", reduced_motion="reduce")
    dark = page.picture()
    assert light[0, 0].min() > 200
    assert dark[0, 0].max() < 60
    assert page.run("getComputedStyle(document.getElementById('drop')).transitionDuration") in ("0s", "0s, 0s")


def test_the_page_of_addresses_reads_well_on_a_phone(page: Tab, running: Running) -> None:
    page.size(390, touch=True)
    page.open(f"http://127.0.0.1:{running.port}/docs")
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.hosts() == {f"127.0.0.1:{running.port}"}
    assert page.complaints() == []
