"""Any OpenTelemetry span: a local msgtrace is started, or found, and takes it.

pip install 'msgtrace[integration]'
"""

from opentelemetry import trace

from msgtrace.integration import quick_start

quick_start()
with trace.get_tracer("example").start_as_current_span("hello"):
    print("hello, traces")
