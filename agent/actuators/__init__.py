"""Actuators, one kind per file; ``agent.actuators.catalog`` is the table of them."""
