"""Who may come in: the link once, then its cookie; no other host, no other site; and what pages may not do."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from headstart.studio.guard import Door, Guard

PORT = 8700
HOME = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def door(said: list[str]) -> Door:
    return Door(PORT, tell=said.append)


@pytest.fixture
def client(door: Door) -> TestClient:
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("inside")

    app = Starlette(routes=[Route("/{path:path}", hello, methods=["GET", "POST", "PUT", "DELETE"])])
    return TestClient(Guard(app, door), base_url=HOME, follow_redirects=False)


def enter(client: TestClient, door: Door) -> None:
    answer = client.get(door.link())
    assert answer.status_code == 303


def test_without_the_link_there_is_nothing_to_see(client: TestClient, said: list[str]) -> None:
    for path in ("/", "/p/abc/", "/static/studio.js", "/look.css", "/anything"):
        assert client.get(path).status_code == 403
        assert "inside" not in client.get(path).text
    assert client.post("/projects").status_code == 403
    assert client.get("/", headers={"Cookie": f"headstart-studio-{PORT}=guess"}).status_code == 403
    assert client.get("/?token=guess").status_code == 403


def test_the_link_works_once_and_a_new_one_is_told_to_the_terminal_alone(client: TestClient, door: Door, said: list[str]) -> None:
    link = door.link()
    assert client.get(link).headers["location"] == "/"
    assert client.get("/").text == "inside"
    assert client.get(link).status_code == 303, "who is in stays in"
    client.cookies.clear()
    refused = client.get(link)
    assert refused.status_code == 403
    (told,) = said
    new = told.split()[-1]
    assert new.split("=")[1] not in refused.text
    assert client.get("/").status_code == 403
    assert len(said) == 1, "one unused link at a time"
    assert client.get(new).status_code == 303
    assert client.get("/").text == "inside"


def test_the_cookie_is_for_this_site_and_not_for_scripts(client: TestClient, door: Door) -> None:
    cookie = client.get(door.link()).headers["set-cookie"].lower()
    assert "samesite=strict" in cookie
    assert "httponly" in cookie
    assert "domain" not in cookie


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8700", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8700", ""])
def test_another_name_for_this_machine_is_refused(client: TestClient, door: Door, host: str) -> None:
    enter(client, door)
    assert client.get("/", headers={"Host": host}).status_code == 421
    assert client.get(door.link().removeprefix(HOME), headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8700"},
        {"Origin": HOME, "Sec-Fetch-Site": "cross-site"},
        {"Origin": HOME, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_changes_nothing_even_with_the_cookie(client: TestClient, door: Door, headers: dict[str, str]) -> None:
    enter(client, door)
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/p/abc/labels", headers=headers).status_code == 403
    assert client.post("/p/abc/labels", headers={"Origin": HOME, "Sec-Fetch-Site": "same-origin"}).text == "inside"


def test_every_answer_forbids_what_pages_need_not_do(client: TestClient, door: Door) -> None:
    refused = client.get("/")
    enter(client, door)
    for answer in (refused, client.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_no_page_of_the_studio_names_another_host() -> None:
    source = Path(__file__).parents[2] / "src" / "headstart" / "studio"
    ours = [*source.glob("templates/*.html"), source / "static" / "studio.js", source / "static" / "studio.css"]
    assert len(ours) > 10
    for path in ours:
        text = path.read_text(encoding="utf-8")
        assert "//" not in text.replace("// ", "").replace("</", ""), path.name
        assert "style=" not in text, path.name
        assert "onclick" not in text, path.name
