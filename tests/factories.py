"""Valid things with one word: name only what matters to the test."""

from botapi.cfg.bundle import Source
from botapi.domain.names import new_request_id, task_id
from botapi.domain.task import Slice, TaskRequest

LOOPBACK_CFG = """\
trusted_dimensions: "pool"
bot_group {
  auth { ip_whitelist: "loopback" }
  dimensions: "pool:default"
}
"""

NO_LIMITS = {"rate_bot": 0, "rate_address": 0, "rate_refused": 0}
"""Settings for tests whose clock stands still."""


def bots_cfg(text=LOOPBACK_CFG, **scripts):
    """A bots.cfg as the server would read it from disk."""
    return Source(text, {name: body.encode() for name, body in scripts.items()})


def make_slice(**more):
    """A slice that any bot of the pool `default` fits."""
    values = {"command": ("/bin/true",), "dimensions": {"pool": ("default",)}}
    return Slice(**{**values, **more})


def make_request(number=1, now_ms=1_772_604_367_089, slices=None, **more):
    """A task request; equal numbers give equal ids."""
    values = {
        "task_id": task_id(new_request_id(now_ms, number)),
        "name": "test",
        "priority": 100,
        "user": "",
        "authenticated": "user:test",
        "tags": (),
        "slices": tuple(slices or (make_slice(),)),
        "created_ms": now_ms,
    }
    return TaskRequest(**{**values, **more})
