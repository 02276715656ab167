"""A reproducible load for this machine's processors: profiles, their schedule, and the processes that burn."""
