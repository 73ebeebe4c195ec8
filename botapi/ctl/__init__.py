"""The client half of the skep command; it speaks to /api/v1 only."""
