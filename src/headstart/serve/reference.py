"""/docs: the OpenAPI description as a page to read. No script, and nothing from another host."""

import html
import json
from collections.abc import Iterator
from typing import Any

_EXAMPLES = {
    "/v1/predict": (
        "curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' 'ADDRESS/v1/predict?top=3'\n"
        "curl -F photos=@cat.jpg -F photos=@dog.jpg ADDRESS/v1/predict\n"
        """echo "{\\"photos\\": [\\"$(base64 -w0 cat.jpg)\\"]}" | curl --json @- ADDRESS/v1/predict"""
    ),
    "/v1/explain": "curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' 'ADDRESS/v1/explain?label=tabby'",
    "/v1/model": "curl ADDRESS/v1/model",
}


def reference_page(openapi: dict[str, Any]) -> str:
    """HTML for the description that `app.openapi()` makes."""
    body = "".join(_operation(path, method, one) for path, found in openapi["paths"].items() for method, one in found.items())
    schemas = openapi.get("components", {}).get("schemas", {})
    shown = "".join(_schema(name, one) for name, one in sorted(schemas.items()) if "properties" in one and name != "ValidationError")
    token = (
        "" if "securitySchemes" not in openapi.get("components", {}) else "<p>Send <code>Authorization: Bearer TOKEN</code> with each.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>Addresses · headstart</title><link rel="icon" href="data:,"><link rel="stylesheet" href="page.css"></head>'
        '<body><header class="top">'
        '<a class="brand" href="./">headstart</a><a href="openapi.json">openapi.json</a></header><main class="reference">'
        f"<h1>Addresses</h1>{token}{body}<h2>What the answers hold</h2>{shown}</main></body></html>"
    )


def _operation(path: str, method: str, one: dict[str, Any]) -> str:
    parts = [f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(one.get('description', ''))}</p>"]
    if parameters := one.get("parameters"):
        parts.append(_table(("parameter", "meaning"), (_parameter(parameter) for parameter in parameters)))
    if body := one.get("requestBody"):
        kinds = ", ".join(f"<code>{html.escape(kind)}</code>" for kind in body["content"])
        parts.append(f"<p>Body: {kinds}</p>")
    if path in _EXAMPLES:
        parts.append(f"<pre>{html.escape(_EXAMPLES[path])}</pre>")
    answers = ((status, html.escape(found["description"]) + _named(found)) for status, found in one["responses"].items())
    return "".join([*parts, _table(("answer", "when"), answers), "</section>"])


def _parameter(parameter: dict[str, Any]) -> tuple[str, str]:
    schema = parameter["schema"]
    limits = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to"), ("default", "default")) if key in schema]
    return parameter["name"], html.escape("; ".join([parameter.get("description", ""), *limits]))


def _named(answer: dict[str, Any]) -> str:
    references = [kind["schema"]["$ref"] for kind in answer.get("content", {}).values() if "$ref" in kind.get("schema", {})]
    names = [reference.rpartition("/")[2] for reference in references]
    return "".join(f' (<a href="#{name}">{name}</a>)' for name in names)


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = ((key, html.escape(f"{_kind(value)}. {value.get('description', '')}")) for key, value in schema["properties"].items())
    about = html.escape(schema.get("description", ""))
    return f'<section id="{name}"><h3>{name}</h3><p>{about}</p>{_table(("field", "what"), rows)}</section>'


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return str(schema.get("type", json.dumps(schema)))


def _table(columns: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    """Args: rows: text, and HTML."""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(f'<tr><th scope="row"><code>{html.escape(name)}</code></th><td>{said}</td></tr>' for name, said in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
