"""bots.cfg and the bot archive: what the admin decides."""
