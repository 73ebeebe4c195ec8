"""Configurations for tests of handlers, put in force at once."""

from botapi.cfg.bundle import Source
from botapi.transactions.push_config import push_config
from tests.factories import LOOPBACK_CFG

POOLS = """\
pool {{
  name: "default"
  realm: "p:r"
  rbe_migration {{
    rbe_instance: "projects/p/instances/one"
    rbe_mode_percent: 100
    {more}
  }}
}}
"""
SERIAL = POOLS.format(more='effective_bot_id_dimension: "serial"')
ASLEEP = "force_bots_to_sleep_and_not_run_task: true\n"


def configure(parts, *, bots=LOOPBACK_CFG, pools="", settings="", **scripts):
    """The next revision; scripts by name without `.py`."""
    files = {f"{name}.py": body.encode() for name, body in scripts.items()}
    push_config(
        parts.store,
        Source(bots, files, pools, settings),
        parent=parts.config.latest().digest,
        author="test",
        now_ms=parts.clock.now_ms(),
    )


def group(*lines, auth='auth { ip_whitelist: "loopback" }', pools=("default",)):
    """A bots.cfg with one group of these further lines."""
    more = "\n".join((auth, *(f'dimensions: "pool:{pool}"' for pool in pools), *lines))
    return f'trusted_dimensions: "pool"\nbot_group {{\n{more}\n}}\n'
