"""The demo's job: a census of the standard library, by a fleet and by one process."""
