"""The subcommands of wattloop-coordinator, one per file."""
