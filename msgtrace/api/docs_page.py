"""The API's description as one page for people: no script, nothing from elsewhere.

Path: api.openapi → [api.docs_page] → HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --quiet: #59636e;
  --accent: #0b57d0; --get: #116329; --delete: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #151b23; --quiet: #9198a1;
  --accent: #79b8ff; --get: #7ee787; --delete: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 6rem; max-width: 60rem; line-height: 1.5;
  font-family: system-ui, sans-serif; }
h1 { margin: 0; } h2 { margin: 3rem 0 1rem; } h3 { margin: 2rem 0 .5rem; font-size: 1rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
code { font-family: ui-monospace, monospace; font-size: .92em; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .6rem 0; }
summary { cursor: pointer; padding: .6rem .9rem; display: flex; gap: .9rem; flex-wrap: wrap;
  align-items: baseline; }
details[open] > summary { border-bottom: 1px solid var(--line); background: var(--soft); }
.inside { padding: .5rem .9rem 1rem; }
.method { font: 600 .8rem ui-monospace, monospace; min-width: 4.2rem; }
.get { color: var(--get); } .delete { color: var(--delete); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td:first-child { white-space: nowrap; }
"""


def render_page(document: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI document as `api.openapi` makes it."""
    info = document["info"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])}</h1>",
            f'<p class="quiet">Version {escape(info["version"])} · for programs: ',
            '<a href="openapi.json">openapi.json</a></p>',
            f"<p>{escape(info['description'])}</p><h2>Endpoints</h2>",
            *_endpoints(document["paths"]),
            "<h2>Replies</h2>",
            *_schemas(document["components"]["schemas"]),
            "</body></html>",
        )
    )


def _endpoints(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield f'<details id="{escape(operation["operationId"])}"><summary>'
            yield f'<span class="method {method}">{method.upper()}</span>'
            yield f"<code>{escape(path)}</code>"
            yield f'<span class="quiet">{escape(operation["summary"])}</span></summary>'
            yield f'<div class="inside"><p>{escape(operation.get("description", ""))}</p>'
            yield from _parameters(operation["parameters"])
            yield from _responses(operation["responses"])
            yield "</div></details>"


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield "<h3>Parameters</h3><table><tr><th>Name</th><th>Form</th><th>Meaning</th></tr>"
    for each in parameters:
        place = ' <span class="quiet">in the path</span>' if each["in"] == "path" else ""
        yield f"<tr><td><code>{escape(each['name'])}</code>{place}</td>"
        yield f"<td>{_form(each['schema'])}</td><td>{escape(each['description'])}</td></tr>"
    yield "</table>"


def _responses(responses: Mapping[str, Any]) -> Iterator[str]:
    yield "<h3>Replies</h3><table><tr><th>Status</th><th>Content</th><th>Meaning</th></tr>"
    for status, each in responses.items():
        contents = [
            _form(content["schema"])
            if "schema" in content
            else f"<code>{escape(media_type)}</code>"
            for media_type, content in each.get("content", {}).items()
        ]
        meaning = escape(each["description"])
        for name, header in each.get("headers", {}).items():
            meaning += f"<br><code>{escape(name)}</code>: {escape(header['description'])}"
        yield f"<tr><td>{status}</td><td>{'<br>'.join(contents)}</td><td>{meaning}</td></tr>"
    yield "</table>"


def _schemas(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<details id="{escape(name)}" open><summary><code>{escape(name)}</code>'
        yield f'<span class="quiet">{escape(schema.get("description", ""))}</span></summary>'
        yield '<div class="inside"><table>'
        for field, described in schema.get("properties", {}).items():
            yield f"<tr><td><code>{escape(field)}</code></td><td>{_form(described)}</td>"
            yield f"<td>{escape(described['description'])}</td></tr>"
        yield "</table></div></details>"


def _form(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_form, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_form(schema.get('items', {}))}"
    return escape(kind) + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    least, greatest = schema.get("minimum"), schema.get("maximum")
    if least is None or greatest is None:
        return ""
    return f' <span class="quiet">{least:,} to {greatest:,}</span>'
