"""Somebody with an API key, for tests of the API and the pages."""

from botapi.auth.access import new_api_key
from botapi.domain.permissions import Role
from botapi.transactions.create_api_key import create_api_key
from tests.fakes import documented


class Person:
    """Calls `/api/v1` through a Flask test client as the owner of an API key."""

    def __init__(self, client, key=""):
        self.client = client
        self.key = key

    def call(self, method, path, **more):
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= more.pop("headers", {})
        response = self.client.open("/api/v1" + path, method=method, headers=headers, **more)
        documented.check(method, path, response)
        return response

    def get(self, path, **more):
        return self.call("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.call("POST", path, json=body, **more)

    def submit(self, *command, **more):
        """A new task; its JSON."""
        reply = self.post("/tasks", {"command": list(command) or ["/bin/true"], **more})
        assert reply.status_code == 201, reply.text
        return reply.json


def new_key(store, clock, rng, name="alice"):
    """A good API key of this name, in clear."""
    text, key = new_api_key(name, Role.ADMIN, rng, now_ms=clock.now_ms())
    create_api_key(store, key)
    return text
