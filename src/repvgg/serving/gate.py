"""Who gets in: limits that hold before anything is read of a request, while it is read, and while it is worked on."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from repvgg.serving.limits import Limits
from repvgg.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer instead of the one that was asked for."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    def response(self) -> JSONResponse:
        """As it is sent."""
        return JSONResponse({"error": self.message}, self.status, self.headers)


class Gate:
    """An ASGI application around another one.

    A request's body is read here, as a whole, into memory that is bounded, so what is inside is never held up by a slow
    client. (Requests with a body are few and small: there is one picture in each.)

    Attributes:
        running: requests that came in and have no answer so far.
    """

    def __init__(self, app: App, limits: Limits, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self.running = 0
        metrics.requests_in_work(lambda: self.running)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_host(Headers(scope=scope))
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        begin, status = perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.running += 1
        try:
            await self._limited(scope, receive, counted)
        finally:
            self.running -= 1
            self._metrics.request(status, perf_counter() - begin)

    async def _limited(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request within its time."""
        doing, answering = "arrived", False

        async def noted(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            async with asyncio.timeout(self._limits.seconds):
                self._check_room()
                body = await self._body(Headers(scope=scope), receive)
                if body is None:
                    return
                doing = "been answered"
                await self._app(scope, _replayed(body, receive), noted)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        except TimeoutError:
            if answering:
                raise
            late = Refusal(
                408 if doing == "arrived" else 504,
                f"The request has not {doing} within {self._limits.seconds:g} seconds. Try again later.",
            )
            await late.response()(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        if self._limits.hosts is None:
            return
        host = _hostname(headers.get("host", ""))
        if host not in self._limits.hosts:
            raise Refusal(
                421,
                f"This server answers to {', '.join(sorted(self._limits.hosts))} and was asked as '{host}'. Start "
                "it with --host to serve others.",
            )

    def _check_room(self) -> None:
        if self.running > self._limits.requests:
            raise Refusal(
                503,
                f"The server is busy with {self._limits.requests} requests. Try again in a second.",
                {"Retry-After": "1"},
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone."""
        announced = headers.get("content-length", "0")
        self._check_size(int(announced) if announced.isdecimal() else 0)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            self._check_size(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._limits.bytes:
            raise Refusal(
                413,
                f"The request is larger than this server's limit of {self._limits.megabytes:g} MB. Send less.",
                # What is still on its way is not read.
                {"Connection": "close"},
            )


def _hostname(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
