"""What agents and coordinators share, and everything that stands in for the world they run in."""
