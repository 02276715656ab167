"""Puts a service onto a machine: its environment, unit, user, directories and a commented configuration."""
