"""The public API `swarming.v2` over pRPC (docs/prpc.md)."""
