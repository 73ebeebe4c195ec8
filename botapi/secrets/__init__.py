"""Secrets of tasks, sealed (docs/secrets.md)."""
