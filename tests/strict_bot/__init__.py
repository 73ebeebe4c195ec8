"""A bot that this project's bot and server had no part in: written from the protocol page alone.

It behaves as an unmodified upstream bot is specified to behave and ends with one line, naming
the row, at the first reply that such a bot could not work with. Standard library only;
`python -m tests.strict_bot --help`.
"""
