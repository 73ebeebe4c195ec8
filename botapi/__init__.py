"""The Skep server: bots, tasks, and the scheduler between them."""

__version__ = "0.1.0"
