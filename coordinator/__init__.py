"""Runs on a lab host: steps microgrids against measured power, decides, commands and records."""
