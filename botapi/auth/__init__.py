"""Who is calling: session tokens, bot credentials, people."""
