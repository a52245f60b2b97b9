"""A web service with a database; each request is a trace with its statements.

pip install 'msgtrace[integration]' uvicorn starlette \
    opentelemetry-instrumentation-starlette opentelemetry-instrumentation-sqlite3
uvicorn web_service:app --port 8000
curl localhost:8000/orders/7
"""

import sqlite3

from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from msgtrace.integration import quick_start

quick_start(service_name="orders")
SQLite3Instrumentor().instrument()

database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
database.execute("INSERT INTO orders VALUES (7, 'a bicycle')")


async def get_order(request: Request) -> JSONResponse:
    order_id = int(request.path_params["order_id"])
    cursor = database.cursor()  # statements of cursors are traced
    found = cursor.execute("SELECT item FROM orders WHERE id = ?", (order_id,)).fetchone()
    if found is None:
        return JSONResponse({"detail": f"no order {order_id}"}, 404)
    return JSONResponse({"id": order_id, "item": found[0]})


app = Starlette(routes=[Route("/orders/{order_id:int}", get_order)])
StarletteInstrumentor.instrument_app(app)
