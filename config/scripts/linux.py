"""Example hooks for the bots of one group. Runs inside the bot, on Python 3.9 and later."""

import os


def on_before_task(bot, bot_file=None, runner_cmd=None, runner_env=None):  # noqa: ARG001, ANN001, ANN201
    """Give tasks a scratch folder of their own host; a hook may edit `runner_env` in place."""
    if runner_env is not None and os.path.isdir("/scratch"):
        runner_env["SCRATCH"] = "/scratch"
