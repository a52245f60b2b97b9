"""The tracer provider of the process: the one that is set, or one of ours.

A provider cannot be unset. One of ours samples nothing once recording has stopped, so that what it
then costs is next to nothing.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import urllib.parse
import weakref
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

logger = logging.getLogger("msgtrace.integration")


class SwitchedSampler(Sampler):
    """The sampler of a provider of ours: what the environment asks for, or nothing at all."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.is_on = True

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **kwargs: Any
    ) -> SamplingResult:
        """As the sampler says, while on."""
        if self.is_on:
            return self._sampler.should_sample(parent_context, trace_id, name, *args, **kwargs)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        """That of the sampler."""
        return self._sampler.get_description()


_own_samplers: weakref.WeakKeyDictionary[TracerProvider, SwitchedSampler] = (
    weakref.WeakKeyDictionary()
)


def find_provider(service_name: str | None, names_platform: bool) -> TracerProvider:
    """The provider that is set, ours if none is."""
    # Our own exit flushes within a bound; the provider's would not.
    if not hasattr(trace.get_tracer_provider(), "add_span_processor"):
        made = TracerProvider(
            resource=make_resource(service_name, names_platform), shutdown_on_exit=False
        )
        made.sampler = _own_samplers[made] = SwitchedSampler(made.sampler)
        trace.set_tracer_provider(made)
    found: Any = trace.get_tracer_provider()
    if not hasattr(found, "add_span_processor"):
        logger.warning("the tracer provider %s takes no span processor", type(found).__name__)
        return TracerProvider(shutdown_on_exit=False)
    if (sampler := _own_samplers.get(found)) is not None:
        sampler.is_on = True
    provider: TracerProvider = found
    return provider


def silence(provider: TracerProvider) -> None:
    """No span of a provider that we have set is recorded any more."""
    if (sampler := _own_samplers.get(provider)) is not None:
        sampler.is_on = False


def make_resource(service_name: str | None, names_platform: bool) -> Resource:
    """What a provider of ours says about the program: at least the name of its service."""
    attributes: dict[str, str] = {}
    if service_name is not None:
        attributes[SERVICE_NAME] = service_name
    elif not _environment_names_service():
        script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c") else ""
        attributes[SERVICE_NAME] = os.environ.get("MSGTRACE_SERVICE_NAME") or script or "python"
    if names_platform:
        attributes |= {
            "platform.system": platform.system(),
            "platform.release": platform.release(),
            "platform.machine": platform.machine(),
            "python.version": platform.python_version(),
        }
    return Resource.create(attributes)


def _environment_names_service() -> bool:
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or (
        f"{SERVICE_NAME}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    )


def sdk_exports_to(endpoint: str, provider: TracerProvider) -> bool:
    """Whether msgtrace-sdk has set this provider, with an exporter to the same server.

    Its resource is the only one that says nothing of the SDK that made it.
    """
    if os.environ.get("MSGTRACE_TELEMETRY_ENABLED", "").lower() != "true":
        return False
    if os.environ.get("MSGTRACE_EXPORTER", "otlp") == "console":
        return False
    is_of_sdk = "telemetry.sdk.name" not in provider.resource.attributes
    return is_of_sdk and _same_server(endpoint, os.environ.get("MSGTRACE_OTLP_ENDPOINT", ""))


def _same_server(one: str, other: str) -> bool:
    places = [urllib.parse.urlsplit(each) for each in (one, other)]
    names = {
        "127.0.0.1" if place.hostname in ("localhost", "::1") else place.hostname
        for place in places
    }
    return len(names) == 1 and places[0].port == places[1].port
