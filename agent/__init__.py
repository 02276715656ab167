"""Runs on a node: measures power, publishes it durably, and obeys power limits under a lease."""
