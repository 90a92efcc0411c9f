"""Photos in, answers out; whatever is no photo costs one 4xx, and the server goes on."""

import base64
import io
import json
import socket
import time
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from serve_tools import Running, Serve, encoded, form, noise, photo, slow_photo

from headstart.bundle.format import Bundle
from headstart.serve import answers
from samples import NO_PHOTOS, bomb

RED, GREEN = photo(), photo((10, 220, 30))


def _json(*photos: bytes) -> bytes:
    return json.dumps({"photos": [base64.b64encode(one).decode() for one in photos]}).encode()


def _expected(bundle: Bundle, *photos: bytes, top: int = 5) -> list[dict]:
    found = bundle.predict(list(photos), top=top, provider="onnxruntime")
    return [{key: value for key, value in one.to_json().items() if key != "path"} for one in found]


@pytest.mark.parametrize(
    ("body", "kind"),
    [(RED, "image/png"), (RED, "application/octet-stream"), (RED, None), form(RED), (_json(RED), "application/json")],
    ids=["image", "bytes", "no kind", "form", "base64"],
)
def test_every_way_to_send_a_photo_gives_the_answer_of_predict(running: Running, bundle: Bundle, body: bytes, kind: str | None) -> None:
    found = running.ask("/v1/predict?top=2", body, kind)
    assert found.status == 200
    answer = answers.Predictions.model_validate(found.json)
    assert [one.model_dump() for one in answer.predictions] == _expected(bundle, RED, top=2)
    assert (answer.model, answer.predictions[0].label) == ("tiny", "tabby")


def test_several_photos_are_answered_in_order_and_a_bad_one_by_its_reason(running: Running, bundle: Bundle) -> None:
    photos = [RED, b"hello", GREEN, noise(), RED[:60]]
    for body, kind in (form(*photos), (_json(*photos), "application/json")):
        found = running.ask("/v1/predict", body, kind).json["predictions"]
        assert [one["reason"] for one in found] == [None, "not an image (text)", None, None, "truncated"]
        for one, expected in zip(found, _expected(bundle, *photos), strict=True):
            assert one == {**expected, "probability": one["probability"], "top": one["top"]}
            probabilities = [[rank["probability"] for rank in answer["top"]] for answer in (one, expected)]
            assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)  # batches of other sizes round otherwise


def test_none_of_these_and_sets_of_labels_are_told(running: Running, bundle: Bundle) -> None:
    found = [running.ask("/v1/predict", one, "image/png").json["predictions"][0] for one in (photo((120, 120, 120)), RED)]
    assert [one["known"] for one in found] == [one["known"] for one in _expected(bundle, photo((120, 120, 120)), RED)]
    assert all(found[i]["labels"] for i in range(2))


BAD = {
    **{name: data for name, (data, _) in NO_PHOTOS.items()},
    "heic without pixels": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50),
    "bomb": bomb(20_000, 10_000),
    "huge bomb": bomb(2**31 - 1, 2**31 - 1),
    "no pixels": bomb(0, 5),
    "over this server's pixels": bomb(9000, 9000),
    **{
        f"truncated {kind}": data[: len(data) // 2]
        for kind, data in ((kind, noise(kind=kind)) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"))
    },
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_photo_is_one_4xx_and_the_next_is_answered(running: Running, name: str) -> None:
    for body, kind in ((BAD[name], "image/jpeg"), form(BAD[name]), (_json(BAD[name]), "application/json")):
        found = running.ask("/v1/predict", body, kind)
        assert found.status == 422
        error = answers.Problem.model_validate(found.json).error
        assert error.startswith(("the photo cannot be read: ", "expected at least one photo"))
        if name in NO_PHOTOS and BAD[name]:
            assert error == f"the photo cannot be read: {NO_PHOTOS[name][1]}"
    assert running.ask("/v1/explain", BAD[name], "image/jpeg").status == 422
    assert running.ask("/v1/predict", RED, "image/png").status == 200


def test_a_photo_over_the_servers_pixels_is_refused_from_its_header(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, max_pixels=1000)
    for path in ("/v1/predict", "/v1/explain"):
        found = running.ask(path, photo(size=(50, 40)), "image/png")
        assert (found.status, found.json["error"]) == (
            422,
            "the photo cannot be read: 50 x 40 pixels, more than the 1,000 a photo may have",
        )
    assert running.ask("/v1/predict", photo(size=(40, 25)), "image/png").status == 200


def test_a_body_over_the_limit_is_refused_announced_or_not(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, max_bytes=1000)
    found = running.ask("/v1/predict", bytes(1001), "image/png")
    assert (found.status, found.json["error"]) == (413, "expected a body of at most 1000 B")
    chunks = b"".join(b"1f4\r\n" + bytes(500) + b"\r\n" for _ in range(3)) + b"0\r\n\r\n"
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(head + chunks)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert running.ask("/v1/predict", RED, "image/png").status == 200
    assert running.server.held.n_bytes == 0


def test_more_photos_than_allowed_are_refused(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, max_photos=2)
    assert running.ask("/v1/predict", *form(RED, RED)).status == 200
    found = running.ask("/v1/predict", *form(RED, RED, RED))
    assert (found.status, found.json["error"]) == (422, "expected at most 2 photos in a request, found 3")
    found = running.ask("/v1/predict", _json(RED, RED, RED), "application/json")
    assert (found.status, found.json["error"]) == (422, "expected at most 2 photos in a request, found 3")
    assert running.ask("/v1/explain", *form(RED, RED)).json["error"] == "expected one photo, found 2"


@pytest.mark.parametrize("n", [17, 5000])
def test_of_photos_that_are_too_many_those_beyond_the_limit_are_not_looked_at(running: Running, n: int) -> None:
    said = (422, f"expected at most 16 photos in a request, found {n}")
    whole, kind = form(*[b""] * n)
    for body in (whole, whole[: -len(b"--=-b--\r\n")] + b"--=-b is damaged\r\n"):
        found = running.ask("/v1/predict", body, kind)
        assert (found.status, found.json["error"]) == said
    for last in ("", "no base64!"):
        found = running.ask("/v1/predict", json.dumps({"photos": [""] * (n - 1) + [last]}).encode(), "application/json")
        assert (found.status, found.json["error"]) == said


@pytest.mark.parametrize(
    ("status", "error", "body", "kind"),
    [
        (415, "found a body of 'text/plain'", RED, "text/plain"),
        (415, "found a body of 'application/x-www-form-urlencoded'", RED, "application/x-www-form-urlencoded"),
        (400, "not JSON", b"{", "application/json"),
        (400, "not JSON", b"\xff", "application/json"),
        (400, "not JSON", b"[" * 200_000, "application/json"),
        (422, "an object with a list of photos", b"[]", "application/json"),
        (422, "an object with a list of photos", b'{"photos": "x"}', "application/json"),
        (422, "an object with a list of photos", b'{"photos": [], "path": "/etc/passwd"}', "application/json"),
        (422, "at least one photo", b'{"photos": []}', "application/json"),
        (422, "expected photo 0 in base64, found: int", b'{"photos": [1]}', "application/json"),
        (422, "expected photo 0 in base64", b'{"photos": ["/etc/passwd!"]}', "application/json"),
        (422, "expected photo 0 in base64", '{"photos": ["é"]}'.encode(), "application/json"),
        (422, "found 'file'", *form(RED, name="file")),
        (400, "no boundary", form(RED)[0], "multipart/form-data"),
        (400, "the form", form(RED)[0][:-9], form(RED)[1]),
        (400, "the form is damaged", RED, form(RED)[1]),
        (422, "at least one photo", b"--=-b--\r\n", form(RED)[1]),
    ],
)
def test_a_wrong_body_is_told_what_was_expected(running: Running, status: int, error: str, body: bytes, kind: str) -> None:
    found = running.ask("/v1/predict", body, kind)
    assert (found.status, error in found.json["error"]) == (status, True), found.body
    assert found.json["hint"]


def test_a_wrong_parameter_is_told(running: Running) -> None:
    for query in ("top=0", "top=x", "top=1001"):
        found = running.ask(f"/v1/predict?{query}", RED, "image/png")
        assert (found.status, found.json["error"].startswith("query top: ")) == (422, True)
    assert running.ask("/v1/predict", method="GET").status == 405
    assert running.ask("/v2/predict", RED).json == {"error": "Not Found", "hint": "see /docs"}


def test_names_that_a_client_gives_are_no_paths(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("../../evil.jpg", str(tmp_path / "evil.jpg"), "evil.jpg", "/etc/passwd"):
        assert running.ask("/v1/predict", *form(RED, file_name=name)).status == 200
    large = encoded(Image.effect_noise((1500, 1500), 90))  # over the size from which web frameworks keep uploads in files
    assert len(large) > 2**20
    assert running.ask("/v1/predict", *form(large)).status == 200
    assert list(tmp_path.iterdir()) == []


def test_models_stand_side_by_side_and_the_first_is_meant_where_none_is_named(serve: Serve, bundle: Bundle) -> None:
    running = serve({"first one": bundle, "ä": bundle})
    assert [one["name"] for one in running.ask("/v1/models").json["models"]] == ["first one", "ä"]
    assert running.ask("/v1/predict", RED).json["model"] == "first one"
    assert running.ask("/v1/predict?model=%C3%A4", RED).json["model"] == "ä"
    found = running.ask("/v1/predict?model=first", RED)
    assert (found.status, found.json) == (404, {"error": "no model is called 'first'", "hint": "did you mean 'first one'?"})


def test_a_model_says_what_it_is_without_a_path_of_this_machine(serve: Serve, folder: Path) -> None:
    from headstart.bundle.format import load_bundle

    bundle = load_bundle(folder)
    found = serve({"tiny": bundle}).ask("/v1/model")
    model = answers.Model.model_validate(found.json)
    assert [(one.name, one.id, one.threshold) for one in model.labels] == [
        ("tabby", "n02123045", 0.5),
        ("café au lait", None, None),
        ("a\nb,c", "n1", None),
    ]
    assert model.preprocessing == bundle.preprocessing.to_json()
    assert model.card is not None
    assert "Made for tests." in model.card
    assert (model.none_of_these, model.conformal) == (
        {"score": "energy", "threshold": -0.5, "false_alarms": 0.05, "detection": None},
        {"coverage": 0.9, "threshold": 0.05},
    )
    assert str(folder.parent) not in found.body.decode()


def test_a_heat_map_comes_with_its_words(running: Running, bundle: Bundle) -> None:
    for label, expected in ((None, "tabby"), ("n1", "a\nb,c")):
        found = running.ask("/v1/explain" + ("" if label is None else f"?label={label}"), noise(), "image/jpeg")
        answer = answers.HeatMapAnswer.model_validate(found.json)
        assert label is None or answer.label == expected
        assert base64.b64decode(answer.png).startswith(b"\x89PNG")
    assert running.ask("/v1/explain?label=dog", RED).status == 404


def test_a_heat_map_of_a_photo_that_is_all_length_is_small(running: Running) -> None:
    body = photo(size=(2_000_000, 1))
    tracemalloc.start()
    try:
        found = running.ask("/v1/explain", body, "image/png")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Image.open(io.BytesIO(base64.b64decode(found.json["png"]))).size == (3840, 1)
    assert peak_bytes < 50e6


def test_a_slow_body_is_told_so(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 0.2 s" in connection.recv(4000)


def test_an_answer_that_takes_too_long_is_given_up(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, timeout_s=0.05)
    found = running.ask("/v1/predict", *form(*[slow_photo()] * 4))
    assert (found.status, found.json["error"]) == (503, "no answer within 0.05 s")
    assert int(found.headers["retry-after"]) >= 1
    while running.server.batcher.n_waiting:  # what was begun ends, the rest is dropped
        time.sleep(0.01)
    dropped = running.server.metrics.registry.get_sample_value("headstart_photos_total", {"model": "tiny", "outcome": "dropped"})
    assert dropped == 4
    assert running.server.ready
