"""Pure microgrid simulation: actors, storage, grid, dispatch policy, engine. No I/O, no clock."""
