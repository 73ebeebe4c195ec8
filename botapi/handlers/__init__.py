"""One bot endpoint a file; no Flask here."""
