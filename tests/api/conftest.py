from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from msgtrace.api.app import create_app
from msgtrace.storage.protocol import Storage


@pytest.fixture
async def client(storage: Storage) -> AsyncIterator[httpx.AsyncClient]:
    """The query service over every backend."""
    transport = httpx.ASGITransport(app=create_app(storage))
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        yield client
