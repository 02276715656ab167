"""Meters, one kind per file; ``agent.meters.catalog`` is the table of them."""
