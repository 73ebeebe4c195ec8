"""Generated code of the public API; see swarming.proto."""
