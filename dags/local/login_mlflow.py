"""MLflow's application with the login of `make ui`, and with artifacts only in their folder.

Guarantees:

* Without the password a client gets nothing but the health of the server.
* No request can name a place for artifacts outside the folder of this workspace's artifacts: the
  server writes uploads there with the rights of the user who started it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dags.local.login import PASSWORD_VARIABLE, Login, respond

_OPEN = ("/health", "/version")
_UPLOADS = ("/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/")
# Without capitals, dots and underscores: MLflow reads fields in snake case and in camel case.
_LOCATIONS = ("artifactlocation", "mlflowartifactlocation", "defaultartifactroot")
_SOURCES = ("runs", "models", "mlflow-artifacts")


def create_app() -> ASGIApp:
    """Return the application; the name `nightjar` of `mlflow server --app-name`."""
    from mlflow.server.fastapi_app import app

    artifacts = Path(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    password = os.environ[PASSWORD_VARIABLE]
    return MlflowLogin(InsideFolder(app, artifacts), password, "nightjar_mlflow")


class MlflowLogin(Login):
    """Refuses requests without a login."""

    async def serve(self, scope: Scope, receive: Receive, send: Send, *, known: bool) -> None:
        """Serve a request."""
        if known or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        # The header makes a browser ask for user and password.
        challenge = ("www-authenticate", 'Basic realm="MLflow of Nightjar"')
        await respond(send, HTTPStatus.UNAUTHORIZED, _LOGIN, [challenge])


_LOGIN = "This server needs a login: open the address that `make ui` printed."


class InsideFolder:
    """ASGI middleware that refuses places of artifacts outside one folder.

    Parameters
    ----------
    app
        MLflow's application.
    folder
        Folder of the artifacts.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(_UPLOADS):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        try:
            outside = self._outside(scope["path"], body)
        except RecursionError:
            outside = "a body nested too deep"
        if outside is None:
            await self._app(scope, _replayed(body, receive), send)
            return
        error = {
            "error_code": "INVALID_PARAMETER_VALUE",
            "message": f"{outside!r} is outside the folder of this workspace's artifacts",
        }
        kind = ("content-type", "application/json")
        await respond(send, HTTPStatus.BAD_REQUEST, json.dumps(error), [kind])

    def _outside(self, path: str, body: bytes) -> str | None:
        """Return the first place of a request that lies outside the folder."""
        try:
            content = json.loads(body)
            while isinstance(content, str):  # MLflow reads JSON in a JSON string, too
                content = json.loads(content)
        except ValueError:
            return None  # MLflow parses no fields from it either
        for name, value in _pairs(content):
            if _plain(name) in _LOCATIONS and value and not self._is_inside(value):
                return value
        if path.rstrip("/").endswith("/model-versions/create") and isinstance(content, dict):
            source = content.get("source")
            # A single word is the source of a prompt, which has no files.
            if isinstance(source, str) and ("/" in source or ":" in source):
                return None if self._is_inside(source, _SOURCES) else source
        return None

    def _is_inside(self, place: str, schemes: tuple[str, ...] = ("mlflow-artifacts",)) -> bool:
        while (decoded := unquote(place)) != place:
            place = decoded
        try:
            parts = urlsplit(place)
        except ValueError:
            return False
        if "\0" in place or ".." in place.split("/"):
            return False
        if parts.scheme in schemes:
            return not parts.netloc
        if parts.scheme not in ("", "file") or parts.netloc:
            return False
        path = Path(parts.path)
        return path.is_absolute() and path.resolve().is_relative_to(self._folder)


def _pairs(content: Any) -> Iterator[tuple[str, str]]:
    """Yield all names with a text, also those of tags: ``{"key": NAME, "value": TEXT}``."""
    if isinstance(content, list):
        for one in content:
            yield from _pairs(one)
    elif isinstance(content, dict):
        if isinstance(content.get("key"), str) and isinstance(content.get("value"), str):
            yield content["key"], content["value"]
        for name, value in content.items():
            if isinstance(value, str):
                yield name, value
            else:
                yield from _pairs(value)


def _plain(name: str) -> str:
    return name.replace("_", "").replace(".", "").lower()


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay
