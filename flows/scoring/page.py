"""The page about the endpoint's paths, made from its OpenAPI description; it loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{background:#eee;padding:1em;overflow:auto}"
)
EXAMPLE = """curl http://127.0.0.1:8300/score --header 'Content-Type: application/json' \\
  --data '{"messages": [{"id": "1", "text": "Are we still on for dinner tonight?"}]}'"""


def page(description: Mapping[str, Any]) -> str:
    """The HTML page of an OpenAPI description."""
    parts = [f"<h1>{escape(description['info']['title'])}</h1>", f"<p>{escape(description['info']['description'])}</p>"]
    parts.append(f"<pre>{escape(EXAMPLE)}</pre>")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{escape(method.upper())} {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>")
            rows = "".join(
                f"<li>{escape(status)}: {escape(response['description'])}</li>"
                for status, response in sorted(operation["responses"].items())
            )
            parts.append(f"<ul>{rows}</ul>")
    schemas = json.dumps(description["components"]["schemas"], indent=2)
    parts.append(f"<h2>Schemas</h2><p>Also in <a href=openapi.json>openapi.json</a>.</p><pre>{escape(schemas)}</pre>")
    return f"<!doctype html><html lang=en><title>Ballast</title><style>{STYLE}</style>{''.join(parts)}</html>"
