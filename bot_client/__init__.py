"""The bot: one zip, the standard library, and a server that decides everything.

Rooms: ``starter`` is the tiny first process; ``loop`` is the supervisor, which alone talks to
the server; ``runner`` is the process that starts task commands and never sees a token.
"""

__version__ = "0.1.0"
