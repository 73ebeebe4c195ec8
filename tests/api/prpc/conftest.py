"""Calls of the public API, as the two kinds of clients make them."""

import json

import pytest
from google.protobuf import json_format

from botapi.api.prpc.services import METHODS

PREFIX = ")]}'\n"


class Reply:
    """An answer: its code, its text, and of a good one the JSON or the message."""

    def __init__(self, http, kind=None):
        self.http = http
        self.status = http.status_code
        self.headers = http.headers
        self.code = int(http.headers["X-Prpc-Grpc-Code"])
        self.data = http.get_data()
        assert http.headers["X-Content-Type-Options"] == "nosniff"
        if self.code == 0 and http.content_type == "application/json":
            text = self.data.decode()
            assert text.startswith(PREFIX)
            assert text.endswith("\n")
            self.json = json.loads(text[len(PREFIX) :])
        if self.code:
            assert http.content_type == "text/plain; charset=utf-8"
            assert self.data.endswith(b"\n")
            assert not self.data.startswith(b")]}'")
        self.text = self.data.decode(errors="replace").removesuffix("\n")


class PrpcClient:
    """As the web client: JSON both ways, a bearer token, no cookies."""

    def __init__(self, client, key=""):
        self.client = client
        self.key = key

    def post(self, method, data, **headers):
        """Any body under any headers, `_` for `-`; None takes a header away."""
        sent = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Authorization": f"Bearer {self.key}" if self.key else None,
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value is not None}
        return Reply(self.client.post(f"/prpc/swarming.v2.{method}", data=data, headers=sent))

    def call(self, method, body=None, **headers):
        """JSON both ways."""
        return self.post(method, json.dumps(body or {}), **headers)

    def good(self, method, body=None):
        """The JSON of a call that must go well."""
        reply = self.call(method, body)
        assert reply.code == 0, (reply.status, reply.text)
        return reply.json

    def binary(self, method, body=None):
        """Binary both ways, as the command-line client; the reply as the JSON it stands for."""
        kind = METHODS["swarming.v2." + method.split("/")[0], method.split("/")[1]]
        message = json_format.ParseDict(body or {}, kind.request())
        reply = self.post(
            method,
            message.SerializeToString(),
            Content_Type="application/prpc; encoding=binary",
            Accept="application/prpc; encoding=binary",
            User_Agent="swarming 1.0",
            X_Prpc_Max_Response_Size="33521664",
        )
        assert reply.code == 0, reply.text
        assert reply.http.content_type == "application/prpc; encoding=binary"
        return reply.data


@pytest.fixture
def prpc(client, admin_key):
    """Somebody who may do everything."""
    return PrpcClient(client, admin_key)


@pytest.fixture
def stranger(client):
    """Nobody in particular."""
    return PrpcClient(client)
