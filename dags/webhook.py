"""Posts a JSON message to the address of an Airflow connection, if that connection exists.

Guarantees:

* Without the connection no message is sent.
* An address that does not answer, or answers slowly, fails no run and delays it by at most 5 s.
* Neither the address nor the password is logged.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class _NoRedirect(HTTPRedirectHandler):
    """Refuses redirects, which turn the POST into a GET and send the password elsewhere."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def exists(connection_id: str) -> bool:
    """Return whether the Airflow connection exists."""
    try:
        BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        return False
    return True


def post(connection_id: str, message: Mapping[str, Any]) -> bool:
    """POST a message as JSON.

    The connection's host may be a whole address (``https://hooks.example.org/night``) or a name
    to which schema, port and the extra ``path`` are added. A password is sent as a bearer token.

    Parameters
    ----------
    connection_id
        Airflow connection; if it does not exist, no message is sent.
    message
        Plain JSON.

    Returns
    -------
    True if the server accepted the message.
    """
    try:
        connection = BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        return False
    # In a thread: the timeout of a socket neither bounds the look-up of a name nor an answer that
    # arrives byte by byte.
    accepted: list[bool] = []
    sender = threading.Thread(
        target=lambda: accepted.append(_send(connection, message)), daemon=True
    )
    sender.start()
    sender.join(_TIMEOUT_S)
    if sender.is_alive():
        log.warning("The webhook did not answer within %g s; the message is dropped.", _TIMEOUT_S)
    return accepted == [True]


def _send(connection: Connection, message: Mapping[str, Any]) -> bool:
    try:
        request = Request(  # noqa: S310 - `address` allows only http and https
            address(connection),
            data=json.dumps(message).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        if connection.password:
            request.add_unredirected_header("Authorization", f"Bearer {connection.password}")
        with build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_S):
            log.info("The message was posted to the webhook.")
            return True
    except HTTPError as error:
        log.warning("The webhook answered %d; the message is dropped.", error.code)
    except (OSError, HTTPException, ValueError) as error:
        # Their texts may hold the address, whose path may be the secret.
        log.warning("The webhook cannot be reached (%s).", type(error).__name__)
    return False


def address(connection: Connection) -> str:
    """Return the address of a connection; raise `ValueError` if it is not an http(s) address."""
    host, schema = connection.host or "", connection.schema or ""
    path: str = connection.extra_dejson.get("path", "")
    if "://" in host:
        url = host
    elif schema in ("", "http", "https"):
        url = f"{schema or connection.conn_type}://{host}"
    else:  # AIRFLOW_CONN_NIGHTJAR_WEBHOOK=https://host/path: Airflow reads the path as the schema
        url, path = f"{connection.conn_type}://{host}", f"/{schema}"
    if connection.port:
        url = f"{url}:{connection.port}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http address")
    return url + path
