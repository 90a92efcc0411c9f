"""Who may ask, what a browser may do with the answer, what is logged and counted."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_tools import Running, Serve, form, noise, photo

from headstart.bundle.format import Bundle
from headstart.errors import ConfigError
from headstart.serve.access import JsonLines, is_loopback
from headstart.serve.run import check_host
from headstart.serve.settings import Settings

TOKEN = "correct-horse-battery"
OPEN = ("/", "/page.css", "/page.js", "/docs", "/openapi.json", "/healthz", "/readyz")
CLOSED = ("/v1/predict", "/v1/explain", "/v1/model", "/v1/models", "/metrics")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the server logs, as it would stand on stderr."""
    stream, log = io.StringIO(), logging.getLogger("headstart.serve")
    handler, before = logging.StreamHandler(stream), log.level
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield stream
    log.removeHandler(handler)
    log.setLevel(before)


def test_with_a_token_only_those_who_send_it_are_answered(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, token=TOKEN)
    for path in CLOSED:
        body = photo() if path in CLOSED[:2] else None
        for wrong in (
            {},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer é"},
        ):
            found = running.ask(path, body, **wrong)
            assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer"), (path, wrong)
            assert found.json["error"] == "expected the server's token"
        assert running.ask(path, body, Authorization=f"Bearer {TOKEN}").status == 200
        assert running.ask(path, body, Authorization=f"bearer {TOKEN}", Host="photos.example.org").status == 200
    for path in OPEN:
        assert running.ask(path).status == 200
    assert running.ask("/v1/../v1/model").status == 401


def test_a_token_is_asked_for_beyond_this_machine() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_host(host, None, False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org"):
        with pytest.raises(ConfigError, match=re.escape(f"expected a token in HEADSTART_TOKEN, since other machines can reach {host}")):
            check_host(host, None, False)
        check_host(host, TOKEN, False)
        check_host(host, None, True)


def test_a_token_that_cannot_be_used_is_refused() -> None:
    for token, said in (
        ("short", "at least 16 characters, found 5"),
        ("ü" * 20, "ASCII"),
        ("with a space in it", "ASCII"),
        ("", "found 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            Settings(token=token)


def test_limits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a queue of at least the 16 photos that one request may hold, found 8"):
        Settings(queue=8)
    with pytest.raises(ConfigError, match="expected max_pixels from 1 to 178956970, found 0"):
        Settings(max_pixels=0)


def test_without_a_token_only_this_machines_own_names_are_answered(running: Running) -> None:
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"):
        assert running.ask("/v1/models", Host=host).status == 200
    for host in ("evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.example.org:80", "192.168.1.5", ""):
        assert running.ask("/v1/models", Host=host).status == 421, host
        assert running.ask("/", Host=host).status == 421


def test_another_web_site_may_not_use_a_server_without_a_token(running: Running) -> None:
    found = running.ask("/v1/predict", photo(), Sec_Fetch_Site="cross-site")
    assert (found.status, found.json["error"]) == (403, "another web site may not use this server")
    assert running.ask("/v1/predict", photo(), Sec_Fetch_Site="same-origin").status == 200
    assert "access-control-allow-origin" not in running.ask("/v1/models", Origin="https://evil.example.org").headers


def test_names_that_only_look_like_this_machine_are_told_apart() -> None:
    assert all(map(is_loopback, ("localhost", "localhost.", "127.0.0.1", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "local", "128.0.0.1", "0.0.0.0", "127.0.0.1.nip.io", "2130706433")))


def test_every_answer_tells_browsers_to_be_strict(running: Running) -> None:
    for path in (*OPEN, "/v1/models", "/nothing"):
        headers = running.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert re.findall(r"https?:", policy) == []
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_the_pages_ask_no_other_host(running: Running) -> None:
    for path in ("/", "/page.css", "/page.js", "/docs"):
        text = running.ask(path).body.decode()
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"(?m)^\s*//.*$", "", text)) == [], path


def test_a_request_is_one_line_of_json_without_what_was_in_it(running: Running, lines: io.StringIO) -> None:
    body, kind = form(photo(), noise(), file_name="secret name.jpg")
    found = running.ask("/v1/predict?top=1", body, kind)
    running.ask("/v1/predict", b"secret text", "image/png")
    running.ask("/secret/path%C3%A9%0A{}")
    first, second, third = (json.loads(line) for line in lines.getvalue().splitlines())
    assert list(first) == [
        "time", "level", "event", "method", "route", "status", "ms", "client", "request", "model", "photos", "bytes"
    ]  # fmt: skip
    assert (first["level"], first["event"], first["method"], first["route"]) == ("info", "request", "POST", "/v1/predict")
    assert (first["status"], first["model"], first["photos"], first["bytes"]) == (200, "tiny", 2, len(body))
    assert (first["client"], first["request"]) == ("127.0.0.1", found.headers["x-request-id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert (second["status"], third["route"], third["status"]) == (422, "other", 404)
    assert "secret" not in lines.getvalue()


def test_a_failure_is_logged_with_its_traceback_and_told_without(
    serve: Serve, bundle: Bundle, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve({"tiny": bundle})

    def broken(images: object) -> None:
        raise RuntimeError("the network broke down")

    monkeypatch.setattr(running.server.models.of("tiny").session, "run", broken)
    found = running.ask("/v1/predict", photo())
    assert (found.status, found.json["error"]) == (500, "the server failed")
    assert b"broke down" not in found.body
    monkeypatch.undo()
    assert running.ask("/v1/predict", photo()).status == 200
    assert running.server.batcher.n_waiting == 0


def test_metrics_count_what_happened(serve: Serve, bundle: Bundle) -> None:
    running = serve({"a": bundle, "b": bundle})
    running.ask("/v1/predict?model=b", *form(photo(), photo(), b"no photo"))
    running.ask("/v1/predict", b"no photo")
    running.ask("/nothing")
    found = running.ask("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    samples = {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(found.body.decode())
        for one in family.samples
    }
    assert samples["headstart_photos_total", ("model", "b"), ("outcome", "read")] == 2
    assert samples["headstart_photos_total", ("model", "b"), ("outcome", "unreadable")] == 1
    assert samples["headstart_requests_total", ("route", "/v1/predict"), ("status", "200")] == 1
    assert samples["headstart_requests_total", ("route", "/v1/predict"), ("status", "422")] == 1
    assert samples["headstart_requests_total", ("route", "other"), ("status", "404")] == 1
    assert samples["headstart_batch_photos_sum", ("model", "b")] == 2
    assert (samples["headstart_queue_photos",], samples["headstart_held_bytes",], samples["headstart_queue_limit_photos",]) == (0, 0, 64)


def test_the_openapi_description_names_the_token_and_the_docs_page_reads_it(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, token=TOKEN)
    described = running.ask("/openapi.json").json
    assert described["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert described["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
    page = running.ask("/docs").body.decode()
    assert all(path in page for path in described["paths"])
    assert "Authorization: Bearer" in page
