"""Ask a running msgtrace for its slowest traces, and for the spans that failed.

pip install httpx
msgtrace start
"""

import os

import httpx

url = f"http://127.0.0.1:{os.environ.get('MSGTRACE_PORT', '4321')}/api/v1"

with httpx.Client(base_url=url) as msgtrace:
    traces = msgtrace.get("/traces", params={"limit": 1000}).json()["traces"]
    for trace in sorted(traces, key=lambda each: -each["duration_ms"])[:10]:
        tokens = trace["input_tokens"] + trace["output_tokens"]
        print(f"{trace['duration_ms']:9.1f} ms  {tokens:6} tokens  {trace['root_span_name']}")

    for trace in msgtrace.get("/traces", params={"has_errors": True}).json()["traces"]:
        for span in msgtrace.get(f"/traces/{trace['trace_id']}").json()["spans"]:
            if span["status"]["status_code"] == "ERROR":
                print(f"failed: {span['name']}: {span['status']['description']}")
