"""The login of `make ui` without its servers: hosts, and what a server logs of a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from dags.local.login import Login

PASSWORD = "the-password-of-this-start"


class Open(Login):
    async def serve(self, scope: Scope, receive: Receive, send: Send, *, known: bool) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})


def ask(
    query: str = "", kind: str = "http", path: str = "/", **headers: str
) -> tuple[Scope, list[Message]]:
    """Return the scope after a request, which a server logs, and the messages of the response."""
    named = {"host": "127.0.0.1:8080", **headers}
    pairs = [(name.encode(), text.encode()) for name, text in named.items()]
    scope: Scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": pairs}
    sent: list[Message] = []

    async def receive() -> Any:
        raise AssertionError("the request was read")

    async def send(message: Message) -> None:
        sent.append(message)

    async def unused(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the request was passed on")

    asyncio.run(Open(unused, PASSWORD, "cookie")(scope, receive, send))
    return scope, sent


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("http", {}),
        ("http", {"host": "0.0.0.0:8080"}),
        ("http", {"origin": "http://evil.example"}),
        ("websocket", {}),
    ],
)
def test_the_password_leaves_the_address_whatever_the_answer_is(
    kind: str, headers: dict[str, str]
) -> None:
    scope, sent = ask(f"a=1&login={PASSWORD}", kind, **headers)
    assert sent
    assert PASSWORD not in str(scope)


def test_the_password_of_a_mistyped_address_leaves_its_path() -> None:
    scope, _ = ask(path=f"/?login={PASSWORD}")
    assert PASSWORD not in str(scope)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080, evil.example", "127.0.0.1:x@evil.example", "localhost:", "localhost:1:2", ""],
)
def test_a_host_is_a_name_and_a_port(host: str) -> None:
    assert ask(host=host)[1][0]["status"] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:18080", "localhost"])
def test_both_names_of_this_machine_are_served(host: str) -> None:
    assert ask(host=host)[1][0]["status"] == 200
