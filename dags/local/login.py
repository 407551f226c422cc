"""Login of the servers of `make ui`: one click on an address, or user and password.

`make ui` makes a password for each server at each start and prints the server's address with
``?login=PASSWORD``. `Login` takes the password out of the address, sets a cookie and redirects to
the address without it.

Guarantees:

* The password is in no argument of a process and in no line of a log.
* A request for another host, or from a page of another origin, is refused before it is read.
* No page of these servers can be shown in a frame.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import sha256
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

USER = "admin"
PASSWORD_VARIABLE = "UI_PASSWORD"  # noqa: S105 - the name of a variable
"""Environment variable with the password of a server; no other process has it."""

Headers = Iterable[tuple[str, str]]

_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
_PARAMETER = "login"
_PROTECTION: Headers = (
    ("x-frame-options", "DENY"),
    ("content-security-policy", "frame-ancestors 'none'"),
    ("referrer-policy", "same-origin"),
)


class Login(ABC):
    """ASGI middleware that serves only users who have the password of this start.

    Parameters
    ----------
    app
        Application behind the login.
    password
        Password of this start.
    cookie
        Name of the cookie. Browsers send a cookie to all ports of a host, so each server needs a
        name of its own.
    """

    def __init__(self, app: ASGIApp, password: str, cookie: str) -> None:
        self._app = app
        self._password = password
        self._cookie = cookie
        # A hash: a program that reads the cookie cannot log in to the API with it.
        self._session = hmac.new(password.encode(), cookie.encode(), sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = _take_login(scope)
        if self._password in scope["path"]:  # of a mistyped address; servers log the path, too
            scope["path"] = scope["raw_path"] = "/"
        if scope["type"] == "http":
            await self._request(scope, receive, _protected(send), given)
        else:
            await send({"type": "websocket.close"})  # neither server has web sockets

    @abstractmethod
    async def serve(self, scope: Scope, receive: Receive, send: Send, *, known: bool) -> None:
        """Serve a request of this host; `known` is true for a user who has logged in."""

    async def _request(self, scope: Scope, receive: Receive, send: Send, given: str | None) -> None:
        host = header(scope, "host")
        if not _HOST.fullmatch(host):
            message = f"{host!a} is not a name of this server: {_NEXT}"
            await respond(send, HTTPStatus.FORBIDDEN, message)
            return
        if header(scope, "origin") not in ("", f"http://{host}"):
            message = f"a request of another site's page is refused: {_NEXT}"
            await respond(send, HTTPStatus.FORBIDDEN, message)
            return
        if given is not None:
            await self._log_in(scope["path"], scope["query_string"].decode(), given, send)
            return
        await self.serve(scope, receive, send, known=self._is_known(scope))

    async def _log_in(self, path: str, rest: str, password: str, send: Send) -> None:
        if not _equal(password, self._password):
            await respond(send, HTTPStatus.UNAUTHORIZED, _WRONG)
            return
        # One slash: a path that starts with two would be the address of another host.
        address = "/" + quote(path.lstrip("/")) + (f"?{rest}" if rest else "")
        cookie = f"{self._cookie}={self._session}; Path=/; HttpOnly; SameSite=Lax"
        headers = (("location", address), ("set-cookie", cookie), ("cache-control", "no-store"))
        await respond(send, HTTPStatus.SEE_OTHER, "", headers)

    def _is_known(self, scope: Scope) -> bool:
        kind, _, value = header(scope, "authorization").partition(" ")
        if kind.lower() == "basic":
            return _equal(_decoded(value), f"{USER}:{self._password}")
        # Not `http.cookies`: it stops at a cookie of another server that it cannot read.
        cookies = (pair.strip().partition("=") for pair in header(scope, "cookie").split(";"))
        return any(
            name == self._cookie and _equal(value, self._session) for name, _, value in cookies
        )

    @property
    def forget(self) -> tuple[str, str]:
        """Header that removes the cookie."""
        return ("set-cookie", f"{self._cookie}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")


def _take_login(scope: Scope) -> str | None:
    """Remove the password from the query, which servers log after any response, and return it."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = [value for name, value in query if name == _PARAMETER]
    if not given:
        return None
    scope["query_string"] = urlencode([pair for pair in query if pair[0] != _PARAMETER]).encode()
    return given[-1]


_NEXT = "open the address that `make ui` printed"
_WRONG = f"this password is not the one of the running server: {_NEXT}"


def header(scope: Scope, name: str) -> str:
    """Return the values of a request's header, joined; empty if there is none."""
    wanted = name.encode()
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == wanted]
    # Browsers and proxies may send several lines of cookies; any other header has one.
    return ("; " if name == "cookie" else ", ").join(values)


async def respond(send: Send, status: int, text: str, headers: Headers = ()) -> None:
    """Send a whole response in plain text.

    Parameters
    ----------
    send
        ASGI's function.
    status, text
        Status code and body.
    headers
        Further headers.
    """
    body = text.encode()
    given = (("content-type", "text/plain"), ("content-length", str(len(body))), *headers)
    await send({"type": "http.response.start", "status": status, "headers": encoded(given)})
    await send({"type": "http.response.body", "body": body})


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI sends them."""
    return [(name.encode(), value.encode()) for name, value in headers]


def _protected(send: Send) -> Send:
    own = encoded(_PROTECTION)
    names = {name for name, _ in own if name != b"content-security-policy"}

    async def with_protection(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*given, *own]}
        await send(message)

    return with_protection


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return ""


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
