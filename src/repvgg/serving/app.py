"""The application: its pages, and what `/predict` does."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import repvgg
from repvgg.base.errors import ImageError, RepVGGError
from repvgg.data import decode_image, prepare_image
from repvgg.evaluation.prediction import most_likely
from repvgg.serving.answers import Answer, Guess, Health, ModelAnswer, ModelFacts, Problem
from repvgg.serving.batches import Batcher
from repvgg.serving.gate import Gate, Refusal
from repvgg.serving.limits import Limits
from repvgg.serving.metrics import Metrics
from repvgg.serving.served import Served

PAGE = Path(__file__).with_name("page")
FILES = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "A model that is not served"},
    408: {"model": Problem, "description": "The request took too long to arrive"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "The picture cannot be used, or the request has another form"},
    500: {"model": Problem, "description": "A network failed"},
    503: {"model": Problem, "description": "Too many requests at once"},
    504: {"model": Problem, "description": "The answer took too long"},
}

LONGEST_NAME = 200


@dataclass
class _Work:
    """What is there while the application runs."""

    batchers: dict[str, Batcher]
    readers: ThreadPoolExecutor


@dataclass(frozen=True)
class _Picture:
    width: int
    height: int
    images: dict[str, np.ndarray]


def application(networks: Sequence[Served], limits: Limits) -> Gate:
    """The networks behind HTTP."""
    metrics = Metrics()
    app: FastAPI = FastAPIOffline(
        redoc_url=None,
        title="repvgg",
        version=repvgg.__version__,
        description="What is in a picture, by one or several networks.",
        lifespan=lambda app: _working(app, networks, limits, metrics, lambda: gate.running),
    )
    for kind, refusal in _REFUSALS.items():
        app.add_exception_handler(kind, _handler(refusal))
    _add_page(app)
    _add_facts(app, networks, metrics)
    _add_predict(app, {network.name: network for network in networks}, limits)
    gate = Gate(app, limits, metrics)
    return gate


@asynccontextmanager
async def _working(
    app: FastAPI, networks: Sequence[Served], limits: Limits, metrics: Metrics, running: Callable[[], int]
) -> AsyncIterator[None]:
    """Starts what works on pictures; at the end, what waits is run first."""
    # One thread for all networks: they take turns, each with all cores, so that their times can be compared.
    with (
        ThreadPoolExecutor(1, "repvgg-network") as network_thread,
        ThreadPoolExecutor(os.cpu_count() or 1, "repvgg-reading") as readers,
    ):
        batchers = {}
        for network in networks:
            batcher = Batcher(
                network.probabilities,
                network.sizes,
                network_thread,
                limits.window,
                running,
                partial(metrics.batch, network.name),
            )
            batcher.start()
            metrics.waiting(network.name, batcher.waiting)
            batchers[network.name] = batcher
        app.state.work = _Work(batchers, readers)
        try:
            yield
        finally:
            for batcher in batchers.values():
                await batcher.close()


def _add_page(app: FastAPI) -> None:
    for address, file in FILES.items():
        app.get(address, include_in_schema=False)(_sender(PAGE / file))


def _sender(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(path, headers=HEADERS)

    return send


def _add_facts(app: FastAPI, networks: Sequence[Served], metrics: Metrics) -> None:
    @app.get("/models")
    async def models() -> list[ModelFacts]:
        """The networks, in the order in which they answer."""
        return [
            ModelFacts(
                name=network.name,
                classes=list(network.class_names),
                image_size=network.preprocessing.crop,
                precision=network.runner.metadata.precision,
                batch=network.sizes[-1],
            )
            for network in networks
        ]

    @app.get("/health")
    async def health() -> Health:
        """Whether the server works, for whatever watches over it."""
        return Health(version=repvgg.__version__, models=[network.name for network in networks])

    @app.get("/metrics")
    async def figures() -> Response:
        """Requests, batches and times, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_predict(app: FastAPI, networks: dict[str, Served], limits: Limits) -> None:
    @app.post("/predict", responses=PROBLEMS)
    async def predict(
        request: Request,
        file: UploadFile,
        top: Annotated[int, Query(ge=1, description="Classes to name, most likely first.")] = 5,
        model: Annotated[
            list[str] | None, Query(description="Which networks answer; all of them if none is named.")
        ] = None,
    ) -> Answer:
        """The most likely classes of a picture.

        The file may be a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM. It is turned upright, resized and cut out as each
        network was trained; of several frames the first counts.
        """
        begin = perf_counter()
        for name in model or ():
            if name not in networks:
                raise Refusal(404, f"There is no model called '{name}' here. There are: {', '.join(networks)}.")
        chosen = [networks[name] for name in dict.fromkeys(model or networks)]
        work: _Work = request.app.state.work
        name = (file.filename or "picture")[:LONGEST_NAME]
        picture = await asyncio.get_running_loop().run_in_executor(
            work.readers, _read, await file.read(), name, chosen, limits.pixels
        )
        rows = await asyncio.gather(
            *(work.batchers[network.name].row(picture.images[network.name]) for network in chosen)
        )
        answers = []
        for network, row in zip(chosen, rows, strict=True):
            guesses = zip(*most_likely(network.class_names, row.values, top), strict=True)
            answers.append(
                ModelAnswer(
                    model=network.name,
                    classes=[
                        Guess.model_validate({"class": name, "probability": probability})
                        for name, probability in guesses
                    ],
                    milliseconds=round(row.seconds * 1e3, 3),
                    batch=row.batch,
                )
            )
        return Answer(
            image=name,
            width=picture.width,
            height=picture.height,
            models=answers,
            milliseconds=round((perf_counter() - begin) * 1e3, 3),
        )


def _read(content: bytes, name: str, networks: Sequence[Served], max_pixels: int) -> _Picture:
    """The picture as each network takes it, decoded once for those that want the same channels.

    Raises:
        ImageError: if it cannot be used.
    """
    decoded = {}
    images = {}
    for network in networks:
        channels = network.preprocessing.channels
        if channels not in decoded:
            decoded[channels] = decode_image(content, name, channels, max_pixels=max_pixels)
        images[network.name] = prepare_image(decoded[channels], network.preprocessing)
    size = next(iter(decoded.values())).size
    return _Picture(*size, images)


def _malformed(error: RequestValidationError) -> Refusal:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return Refusal(422, f"{where}: {first['msg']}. /docs shows what a request looks like.")


def _failed(error: Exception) -> Refusal:
    reason = f": {error}" if isinstance(error, RepVGGError) else "; what it printed says why."
    return Refusal(500, f"The server failed{reason}")


_REFUSALS: dict[type[Exception], Callable[[Any], Refusal]] = {
    Refusal: lambda error: error,
    ImageError: lambda error: Refusal(422, str(error)),
    RequestValidationError: _malformed,
    HTTPException: lambda error: Refusal(error.status_code, str(error.detail), dict(error.headers or {})),
    Exception: _failed,
}
"""Every error is one sentence under one key."""


def _handler(refusal: Callable[[Any], Refusal]) -> Callable[[Request, Exception], JSONResponse]:
    return lambda _, error: refusal(error).response()
