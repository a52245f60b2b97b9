"""Plain SQL on the file that msgtrace writes: where does the time go, and where do the tokens?

The file is in the user's data folder unless MSGTRACE_DATABASE_URL names another;
`msgtrace settings` shows it. Reading disturbs nobody.
"""

import sqlite3
import sys

traces = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)

print("spans by name: count, mean ms, errors")
for row in traces.execute(
    """
    SELECT name, count(*), round(avg(duration_ms), 1), sum(status = 'ERROR')
    FROM span_view GROUP BY name ORDER BY sum(duration_ms) DESC
    """
):
    print(*row, sep="\t")

print("model calls: model, count, input tokens, output tokens")
for row in traces.execute(
    """
    SELECT json_extract(attributes, '$."gen_ai.response.model"'), count(*),
           sum(json_extract(attributes, '$."gen_ai.usage.input_tokens"')),
           sum(json_extract(attributes, '$."gen_ai.usage.output_tokens"'))
    FROM span_view WHERE json_extract(attributes, '$."gen_ai.usage.input_tokens"') IS NOT NULL
    GROUP BY 1
    """
):
    print(*row, sep="\t")
