from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from msgtrace.api.app import create_app
from msgtrace.api.errors import status_for
from msgtrace.errors import (
    ConfigError,
    InvalidParameter,
    MalformedRequest,
    MsgtraceError,
    Overloaded,
    QueryTimeout,
    RequestError,
    StorageError,
    StorageUnavailable,
    TraceNotFound,
    Unavailable,
)
from msgtrace.storage.protocol import Storage

NO_STORAGE = cast(Storage, None)
"""For requests that never reach the storage."""


async def answer_to(error: Exception, *, origin: str | None = None) -> httpx.Response:
    """The response of an application in which GET /raise raises `error`."""

    async def endpoint(request: Request) -> Response:
        raise error

    app = create_app(
        NO_STORAGE,
        cors_origins=[origin] if origin else [],
        extra_routes=[Route("/raise", endpoint)],
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        return await client.get("/raise", headers={"Origin": origin} if origin else {})


def errors_below(error: type[MsgtraceError]) -> Iterator[type[MsgtraceError]]:
    yield error
    for child in error.__subclasses__():
        yield from errors_below(child)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidParameter("limit", "must be less"), 400),
        (TraceNotFound("00"), 404),
        (MalformedRequest("not protobuf"), 400),
        (RequestError("wrong"), 400),
        (StorageUnavailable("the database is gone"), 503),
        (QueryTimeout("too slow"), 503),
        (Overloaded("full"), 503),
    ],
)
async def test_an_error_is_answered_by_its_status_and_its_sentence(
    error: MsgtraceError, status: int
) -> None:
    response = await answer_to(error)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"detail": str(error)}


async def test_a_wrong_parameter_is_named_first() -> None:
    response = await answer_to(InvalidParameter("limit", "must be less"))

    assert response.json()["detail"].startswith("limit: ")


async def test_only_what_a_retry_may_cure_says_when_to_retry() -> None:
    assert (await answer_to(StorageUnavailable("gone"))).headers["retry-after"] == "1"
    assert "retry-after" not in (await answer_to(RequestError("wrong"))).headers


@pytest.mark.parametrize(
    "error", [StorageError("column secret"), ConfigError("secret"), KeyError("secret")]
)
async def test_a_fault_of_ours_is_logged_with_its_traceback_and_answered_without_details(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = await answer_to(error)

    assert response.status_code == 500
    assert response.json() == {"detail": "internal error"}
    [record] = caplog.records
    assert record.message == "request_failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "Traceback" in caplog.text


async def test_a_page_of_an_allowed_origin_may_read_a_fault_of_ours() -> None:
    response = await answer_to(KeyError("secret"), origin="https://ui.example")

    assert response.headers["access-control-allow-origin"] == "https://ui.example"


async def test_an_http_exception_keeps_its_status_detail_and_headers() -> None:
    response = await answer_to(HTTPException(418, "short and stout", {"X-Pot": "tea"}))

    assert response.status_code == 418
    assert response.json() == {"detail": "short and stout"}
    assert response.headers["x-pot"] == "tea"


def test_a_new_kind_of_error_takes_the_status_of_its_nearest_ancestor() -> None:
    class TraceHidden(TraceNotFound):
        pass

    class DatabaseBusy(StorageUnavailable):
        pass

    assert status_for(TraceHidden("00")) == 404
    assert status_for(DatabaseBusy()) == 503
    assert status_for(ValueError()) == 500


def test_every_error_of_msgtrace_has_an_intended_status() -> None:
    """What is neither the sender's fault nor a passing state is ours, and nothing else is."""
    ours = {MsgtraceError, *errors_below(StorageError), *errors_below(ConfigError)}

    for error in errors_below(MsgtraceError):
        is_ours = status_for(error.__new__(error)) == 500
        assert is_ours == (error in ours)
        assert is_ours != issubclass(error, RequestError | Unavailable)
