"""The subcommands of wattloop-agent, one a module."""
