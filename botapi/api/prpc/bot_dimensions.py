"""`GetBotDimensions`: what bots can be asked for (prpc-api 5.8)."""

from swarmingpb.swarming_pb2 import BotsDimensions, BotsDimensionsRequest

from botapi.api import access
from botapi.api.parts import ApiParts
from botapi.api.prpc.call import Call
from botapi.api.prpc.values import string_lists, timestamp
from botapi.domain.permissions import Permission


def get_bot_dimensions(call: Call, asked: BotsDimensionsRequest) -> BotsDimensions:
    """The dimensions of the bots of one pool, or of all pools that the caller may list."""
    caller, configured = call.caller, configured_pools(call.parts)
    on_server = caller.may(Permission.LIST_BOTS)
    pools = [pool for pool in configured if caller.may(Permission.LIST_BOTS, pool)]
    if asked.pool and not on_server and asked.pool not in pools:
        raise access.denied(caller, Permission.LIST_BOTS, f"pool {asked.pool[:80]}")
    found = call.parts.dimensions.found()
    if asked.pool:
        flat = found.by_pool.get(asked.pool, frozenset())
    elif on_server:
        flat = found.of_all
    else:
        flat = frozenset().union(*(found.by_pool.get(pool, ()) for pool in pools))

    def build() -> BotsDimensions:  # every bot's id is among them
        return BotsDimensions(bots_dimensions=string_lists(flat), ts=timestamp(found.at_ms))

    return call.parts.concurrency.native(build)


def configured_pools(parts: ApiParts) -> list[str]:
    """The pools of pools.cfg, or where there is none those that bots.cfg gives to bots; sorted."""
    snapshot = parts.config.cached()
    groups = snapshot.bots.groups
    given = {pool for group in groups for pool in group.dimensions.get("pool", ())}
    return sorted(set(snapshot.pools.pools) or given)
