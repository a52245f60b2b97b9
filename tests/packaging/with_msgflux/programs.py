"""Programs of msgflux users, one a function: `python programs.py NAME ARGUMENTS`.

They run in the environment of a user, away from the repository: see conftest.py. What a test wants
to know they print. Annotations are evaluated: msgflux reads those of tools, and takes no text.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import sys
from typing import Any

from msgtrace.integration import Observer, configure_msgflux_telemetry, quick_start

QUESTION = "What is the weather in Porto, and what is 20 + 22?"


def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sunny in {city}"


def add(a: int, b: int) -> int:
    """Sum of two numbers."""
    return a + b


def weather_agent(**config: bool) -> Any:
    """An agent with two tools, whose model is the stub."""
    import msgflux as mf  # noqa: PLC0415 - the order of imports is what is tested
    from msgflux import nn  # noqa: PLC0415 - likewise

    model = mf.Model.chat_completion("openai/gpt-4o-mini")
    tools = [] if config.get("stream") else [get_weather, add]
    return nn.Agent(name="weather_agent", model=model, tools=tools, config=config)


def run_agent() -> None:
    assert weather_agent()(QUESTION) == "42, and sunny."


def set_own_provider() -> None:
    from opentelemetry import trace  # noqa: PLC0415 - only where the program uses it itself
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - likewise

    trace.set_tracer_provider(TracerProvider())


def helper_first(port: str) -> None:
    quick_start(int(port))
    run_agent()


def msgflux_first(port: str) -> None:
    run_agent()
    observer = quick_start(int(port))
    run_agent()
    observer.stop()
    run_agent()


def msgflux_imported_first(port: str) -> None:
    weather_agent()
    quick_start(int(port))
    run_agent()


def own_provider_first(port: str) -> None:
    set_own_provider()
    quick_start(int(port))
    run_agent()


def own_provider_and_msgflux_first(port: str) -> None:
    set_own_provider()
    weather_agent()
    quick_start(int(port))
    run_agent()


def nests(port: str) -> None:
    """Everything that msgflux does in other threads, tasks and orders."""
    observer = quick_start(int(port))
    import msgflux.nn as nn  # noqa: PLC0415 - after the helper
    import msgflux.nn.functional as F  # noqa: N812, PLC0415 - its usual name
    from opentelemetry import trace  # noqa: PLC0415 - after the helper

    tracer = trace.get_tracer("program")

    class Worker(nn.Module):  # type: ignore[misc]
        def forward(self, number: int) -> int:
            with tracer.start_as_current_span("work"):
                return number * 2

    class Crew(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.worker = Worker()

        def forward(self) -> tuple[int, ...]:
            done: tuple[int, ...] = F.map_gather(self.worker, args_list=[(1,), (2,)])
            return done

    class Failing(nn.Module):  # type: ignore[misc]
        def forward(self) -> None:
            raise ValueError("once")

    def measure(city: str) -> str:
        """Weather of a city, with a span of its own."""
        with tracer.start_as_current_span("thermometer"):
            return f"20 degrees in {city}"

    assert Crew()() == (2, 4)

    with contextlib.suppress(ValueError):
        Failing()()

    with tracer.start_as_current_span("request"):
        run_agent()

    stream = weather_agent(stream=True)("stream")

    async def consume() -> str:
        return "".join([piece async for piece in stream.consume()])

    assert asyncio.run(consume()) == "It is sunny."

    agent = weather_agent()
    agent.tool_library.add(measure)
    with tracer.start_as_current_span("asynchronous"):
        assert asyncio.run(agent.acall(QUESTION)) == "42, and sunny."

    with tracer.start_as_current_span("outside"), concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(lambda: tracer.start_span("stray").end()).result()

    observer.stop()


def crosses_a_request(port: str) -> None:
    """A module inside the request of an instrumented web application."""
    quick_start(int(port))
    from opentelemetry.instrumentation.starlette import (  # noqa: PLC0415 - likewise
        StarletteInstrumentor,
    )
    from starlette.applications import Starlette  # noqa: PLC0415 - after its instrumentation
    from starlette.requests import Request  # noqa: PLC0415 - likewise
    from starlette.responses import PlainTextResponse  # noqa: PLC0415 - likewise
    from starlette.routing import Route  # noqa: PLC0415 - likewise
    from starlette.testclient import TestClient  # noqa: PLC0415 - likewise

    agent = weather_agent()

    async def ask(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await agent.acall(QUESTION))

    app = Starlette(routes=[Route("/ask", ask)])
    StarletteInstrumentor.instrument_app(app)
    sys.stdout.write(TestClient(app).get("/ask").text)


def leaves_no_trace(port: str) -> None:
    """After `stop`, the SDK and the thread pool are as before."""
    from msgtrace.sdk import Spans  # noqa: PLC0415 - its state is compared

    def state() -> list[Any]:
        pool = concurrent.futures.ThreadPoolExecutor
        return [*vars(Spans).values(), pool.submit, os._exit]

    before = state()
    observer = quick_start(int(port), enable_tool_responses=False, enable_state_dict=True)
    from msgflux.envs import envs  # noqa: PLC0415 - what quick_start has set

    captured = envs.telemetry_capture_tool_call_responses
    changed = sum(now is not then for now, then in zip(state(), before, strict=True))
    observer.stop()
    restored = state() == before and envs.telemetry_capture_tool_call_responses
    sys.stdout.write(f"{captured} {changed} {restored}")


def leaves_a_mended_sdk_alone(port: str) -> None:
    """A later SDK whose managers make their spans current."""
    from msgtrace.sdk import Spans  # noqa: PLC0415 - it is changed
    from opentelemetry import trace  # noqa: PLC0415 - likewise

    @contextlib.contextmanager
    def init_flow(flow_name: str, **attributes: Any) -> Any:
        with trace.get_tracer("mended").start_as_current_span(flow_name) as span:
            yield span

    Spans.init_flow = mended = staticmethod(init_flow)
    quick_start(int(port))
    sys.stdout.write(str(vars(Spans)["init_flow"] is mended))


def only_sends(endpoint: str) -> None:
    """In an environment without a server."""
    observer: Observer = quick_start(0)
    sys.stdout.write(f"{observer.is_recording} ")
    with configure_msgflux_telemetry(endpoint=endpoint, service_name="light") as observer:
        from opentelemetry import trace  # noqa: PLC0415 - only after it was configured

        trace.get_tracer("program").start_span("sent from afar").end()
        sys.stdout.write(str(observer.flush()))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
