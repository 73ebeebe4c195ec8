"""Waiting bots, offers and the upkeep that time demands."""
