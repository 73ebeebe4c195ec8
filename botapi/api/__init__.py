"""The JSON API for people and scripts."""
