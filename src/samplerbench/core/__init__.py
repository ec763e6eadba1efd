"""The base of the package: schedules, grids, noise, models, targets, starts, laws on a line."""
