"""The two lists of bots that older tools ask for, as plain JSON (prpc-api 8.2).

Answers are those of `swarming.v2.Bots` in an older form: snake_case, counts as text, times
without a zone, defaults shown.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, g, request
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from swarmingpb.swarming_pb2 import (
    BotInfo,
    BotsCountRequest,
    BotsRequest,
    NullableBool,
    StringPair,
)
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from botapi.api import people
from botapi.api.parts import ApiParts
from botapi.api.prpc.bots import count_all_bots, list_bots
from botapi.api.prpc.call import Call
from botapi.api.prpc.errors import shown
from botapi.api.prpc.paging import bad
from botapi.domain.errors import Code, Refusal, one_line
from botapi.door import HTTP_STATUS, READS, RETRY_AFTER_S, VERBS, Door
from botapi.store.protocol import StoreError

ROOT = "/_ah/api/swarming/v1/bots/"
FLAGS: Mapping[str, NullableBool.ValueType] = {
    "": NullableBool.NULL,
    "NONE": NullableBool.NULL,
    "TRUE": NullableBool.TRUE,
    "FALSE": NullableBool.FALSE,
}

Json = dict[str, Any]
Parameters = MultiDict[str, str]

log = logging.getLogger(__name__)


def counted(call: Call, asked: Parameters) -> Json:
    """`GET .../bots/count`."""
    found = count_all_bots(call, BotsCountRequest(dimensions=_dimensions(asked)))
    counts = ("count", "quarantined", "maintenance", "dead", "busy")
    return {"now": _time(found.now)} | {name: str(getattr(found, name)) for name in counts}


def listed(call: Call, asked: Parameters) -> Json:
    """`GET .../bots/list`."""
    message = BotsRequest(
        limit=_limit(asked.get("limit", "")),
        cursor=asked.get("cursor", ""),
        dimensions=_dimensions(asked),
        quarantined=_flag(asked, "quarantined"),
        in_maintenance=_flag(asked, "in_maintenance"),
        is_dead=_flag(asked, "is_dead"),
        is_busy=_flag(asked, "is_busy"),
    )
    found = list_bots(call, message)
    reply = {
        "death_timeout": str(found.death_timeout),
        "items": [_bot(item) for item in found.items],
        "now": _time(found.now),
    }
    return reply | ({"cursor": found.cursor} if found.cursor else {})


CALLS: Mapping[str, Callable[[Call, Parameters], Json]] = {"count": counted, "list": listed}


def blueprint(parts: ApiParts, door: Door) -> Blueprint:
    """Both lists, for `GET`."""
    routes = Blueprint("legacy_bots", __name__)

    def view(name: str) -> Response:
        caller = people.caller_of_call(parts, request.headers.get("Authorization", ""))
        handler = CALLS.get(name)
        if handler is None:
            raise Refusal(Code.NOT_FOUND, f"there is no {request.path}")
        if request.method not in READS:
            raise MethodNotAllowed(sorted(READS), "use GET here")
        call, asked = Call(parts, caller, door.base_url(request)), request.args
        # A thousand bots as indented JSON take long: the loop goes on meanwhile.
        return _response(parts.concurrency.native(lambda: _text(handler(call, asked))), 200)

    routes.add_url_rule(
        ROOT + "<name>", "bots", view, methods=VERBS, provide_automatic_options=False
    )
    routes.register_error_handler(Refusal, _of_refusal)
    routes.register_error_handler(StoreError, _of_store_error)
    for kind in (404, 405, HTTPException):
        routes.register_error_handler(kind, _of_http)
    routes.register_error_handler(Exception, _of_bug)
    return routes


def _limit(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise bad(f'limit: "{text[:40]}" is not a whole number')
    return int(text or 0)


def _dimensions(asked: Parameters) -> list[StringPair]:
    found = []
    for text in asked.getlist("dimensions"):
        key, colon, value = text.partition(":")
        if not colon:
            raise bad(f'dimensions: "{text[:80]}" has no colon; write key:value')
        found.append(StringPair(key=key, value=value))
    return found


def _flag(asked: Parameters, name: str) -> NullableBool.ValueType:
    text = asked.get(name, "")
    if text not in FLAGS:
        raise bad(f'{name}: "{text[:40]}" is not NONE, TRUE or FALSE')
    return FLAGS[text]


def _bot(bot: BotInfo) -> Json:
    found = _all_fields(bot)
    found |= {name: _time(getattr(bot, name)) for name in ("first_seen_ts", "last_seen_ts")}
    return found


def _all_fields(message: Message) -> Json:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _time(moment: Timestamp) -> str:
    return moment.ToDatetime().isoformat(timespec="microseconds")


def _text(content: Json) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _response(text: str, status: int) -> Response:
    response = Response(text, status, content_type="application/json; charset=utf-8")
    response.headers["Cache-Control"] = "no-store"
    return response


def _error(message: str, status: int) -> Response:
    response = _response(_text({"error": {"message": one_line(message)}}), status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _of_refusal(error: Refusal) -> Response:
    log.info("refused %s: %s: %s", request.path, error.code, error.message)
    return _error(shown(error.code, error.message), HTTP_STATUS[error.code])


def _of_store_error(error: StoreError) -> Response:
    log.error("store: %s", error)
    return _error(shown(Code.UNAVAILABLE, ""), HTTP_STATUS[Code.UNAVAILABLE])


def _of_http(error: HTTPException) -> Response:
    response = _error(str(error.description or error.name), error.code or 500)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)
    return response


def _of_bug(error: Exception) -> Response:
    log.error("request %s failed", g.get("request_id", ""), exc_info=error)
    return _error(shown(Code.INTERNAL, ""), 500)
