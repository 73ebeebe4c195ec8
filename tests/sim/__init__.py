"""The whole server in one thread with a virtual clock: every seed is a history to check."""
