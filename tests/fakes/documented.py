"""Every answer of `/api/v1` that a test sees is held against the OpenAPI document."""

import json
import re
from functools import cache

from jsonschema import Draft202012Validator

from botapi.api.error_codes import CODES
from botapi.api.routes import OPENAPI, TABLE


@cache
def document():
    return json.loads(OPENAPI.read_text())


def pattern(path):
    """Matches the paths of a route, as Flask does."""
    parts = re.split("(<[^>]*>)", path)
    wild = [".+" if part.startswith("<path:") else "[^/]+" for part in parts[1::2]]
    fixed = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(a + b for a, b in zip(fixed, [*wild, ""], strict=True)))


@cache
def routes():
    """Patterns of paths with the path in the document; literal paths win over variable ones."""
    found = [
        (path.count("<"), pattern(path), re.sub("<(?:path:)?([^>]*)>", r"{\1}", path))
        for path, methods in TABLE.items()
        if methods
    ]
    return sorted(found, key=lambda item: (item[0], -len(item[2])))


@cache
def known_answer(path, method, status):
    """Schema checker and media type."""
    answers = document()["paths"][path][method]["responses"]
    answer = answers.get(str(status), answers["default"])
    if "$ref" in answer:
        answer = document()["components"]["responses"]["Problem"]
    ((media, content),) = answer["content"].items()
    schema = {**content["schema"], "components": document()["components"]}
    return Draft202012Validator(schema), media


def check(method, path, response):
    """Raise AssertionError when the answer is not what the document says."""
    plain, method = path.partition("?")[0], method.lower()
    for _count, matches, named in routes():
        if matches.fullmatch(plain) and method in document()["paths"].get(named, {}):
            _check(f"{method} {named} {response.status_code}", named, method, response)
            return


def _check(what, named, method, response):
    if response.status_code == 304:
        assert "304" in document()["paths"][named][method]["responses"], what
        assert response.data == b"", what
        return
    known, media = known_answer(named, method, response.status_code)
    if not media.endswith("json"):
        return
    assert response.content_type == media, f"{what}: {response.content_type}, not {media}"
    wrong = [f"{e.json_path}: {e.message[:200]}" for e in known.iter_errors(response.json)]
    assert not wrong, f"{what}: {wrong[:5]}"
    if media.startswith("application/problem"):
        status, _meaning = CODES[response.json["code"]]
        assert status == response.status_code, f"{what}: {response.json['code']}, not {status}"
