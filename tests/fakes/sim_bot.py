"""A bot in a few lines, for tests of the server: it speaks the protocol and runs nothing."""

import base64
import json
from typing import Any

BOT_PATH = "/swarming/api/v1/bot"
JSON = "application/json; charset=UTF-8"


class SimBot:
    """`post(path, body_bytes, headers)` gives (status, headers, body_bytes)."""

    def __init__(self, post, bot_id="vm1", *, version="", secret="", ours=True, dims=None):
        self.post = post
        self.bot_id = bot_id
        self.session_id = f"{bot_id}-session/1".lower()
        self.session = None
        self.version = version
        self.secret = secret
        self.ours = ours
        self.seq = 0
        self.heard: str | None = None
        """The latest lease it was given; a bot that says it may be given one that is claimed."""
        self.dims = {"id": [bot_id], "os": ["Linux"], **(dims or {})}
        self.state: dict[str, Any] = {"sleep_streak": 0}
        if ours:
            self.state["client"] = {"name": "skep", "version": "1"}
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""

    def call(self, path, **body) -> dict[str, Any]:
        """POST with the session; the parsed reply, `{}` when it is no JSON object."""
        if self.ours:
            self.seq += 1
            body["skep"] = {"v": 1, "seq": self.seq}
            if self.heard is not None and path in {"/poll", "/rbe/session/update"}:
                body["skep"]["lease"] = self.heard
        body = {"session": self.session, **body}
        headers = {"Content-Type": JSON}
        if self.secret:
            headers["X-Skep-Bot-Secret"] = self.secret
        self.status, self.headers, raw = self.post(
            BOT_PATH + path, json.dumps(body).encode(), headers
        )
        self.text = raw.decode(errors="replace")
        try:
            reply = json.loads(raw)
        except ValueError:
            return {}
        if self.status == 200 and isinstance(reply, dict) and reply.get("session"):
            self.session = reply["session"]
        return reply

    def handshake(self, **more):
        body = {"dimensions": self.dims, "state": self.state, "version": self.version}
        reply = self.call("/handshake", **{**body, "session_id": self.session_id, **more})
        self.version = self.version or reply.get("bot_version", "")
        for key, values in reply.get("bot_group_cfg", {}).get("dimensions", {}).items():
            self.dims[key] = values
        return reply

    def poll(self, **more):
        body = {
            "dimensions": self.dims,
            "state": self.state,
            "version": self.version,
            "request_uuid": f"poll-{self.seq}",
        }
        return self.call("/poll", **{**body, **more})

    def open_lease_session(self):
        return self.call("/rbe/session/create")

    def update(self, status="OK", *, nonblocking=True, **more):
        if nonblocking:
            more["nonblocking"] = True
        return self.call("/rbe/session/update", status=status, **more)

    def next_lease(self, **more):
        """What a bot that waits is given: after a wait for nothing it asks again at once.

        Where a store loses the answer to a commit, the offer is there and nobody was told.
        """
        reply = self.update(nonblocking=False, **more)
        return reply["lease"] if "lease" in reply else self.update(nonblocking=False)["lease"]

    def start(self):
        """Handshake, first poll, lease session: ready for work."""
        self.handshake()
        assert self.status == 200, self.text
        assert self.poll().get("cmd") == "rbe", self.text
        self.open_lease_session()
        return self

    def claim(self, lease):
        payload = lease["payload"]
        return self.call(
            "/claim",
            claim_id=lease["id"],
            task_id=payload["task_id"],
            task_to_run_shard=payload["task_to_run_shard"],
            task_to_run_id=payload["task_to_run_id"],
            state=self.state,
        )

    def task_update(self, run_id, output=b"", offset=0, **more):
        if output:
            more |= {"output": base64.b64encode(output).decode(), "output_chunk_start": offset}
        return self.call(f"/task_update/{run_id}", task_id=run_id, **more)

    def finish(self, run_id, output=b"", offset=0, exit_code=0, **more):
        return self.task_update(
            run_id, output, offset, exit_code=exit_code, duration=0.1, cost_usd=0.0, **more
        )

    def work(self, lease, output=b"", exit_code=0):
        """Claim and complete; the run id."""
        claimed = self.claim(lease)
        assert claimed.get("cmd") == "run", claimed
        self.finish(claimed["task_id"], output, exit_code=exit_code)
        return claimed["task_id"]


def flask_post(client):
    """`post` through a Flask test client."""

    def post(path, body, headers):
        response = client.post(path, data=body, headers=headers)
        return response.status_code, dict(response.headers), response.data

    return post
