"""Airflow plugin with the login of `make ui`; only its API server finds this plugin."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from starlette.types import Message, Receive, Scope, Send

from dags.local.login import PASSWORD_VARIABLE, USER, Login, encoded, header


class AirflowLogin(Login):
    """Requests with the cookie get the token of the one user.

    All others go on to Airflow, which has its own page and its own endpoint for a login, and
    answers 401 to everything else.
    """

    async def serve(self, scope: Scope, receive: Receive, send: Send, *, known: bool) -> None:
        """Serve a request."""
        if known and not header(scope, "authorization"):
            scope["headers"].append((b"authorization", f"Bearer {_token()}".encode()))
        if scope["path"] == "/api/v2/auth/logout":
            send = self._forgetting(send)
        await self._app(scope, receive, send)

    def _forgetting(self, send: Send) -> Send:
        async def forgetting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *encoded([self.forget])]}
            await send(message)

        return forgetting


def _token() -> str:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    user = SimpleAuthManagerUser(username=USER, role="ADMIN")
    return str(get_auth_manager().generate_jwt(user=user))


class LoginPlugin(AirflowPlugin):  # type: ignore[misc] - Airflow is not typed
    """Adds the login to the API server."""

    name = "nightjar_login"
    fastapi_root_middlewares: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "login",
            "middleware": AirflowLogin,
            "kwargs": {
                "password": os.environ.get(PASSWORD_VARIABLE, ""),
                "cookie": "nightjar_airflow",
            },
        }
    ]
