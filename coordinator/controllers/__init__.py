"""Decide, step by step, what the microgrid and its nodes should do: rules and user code."""
