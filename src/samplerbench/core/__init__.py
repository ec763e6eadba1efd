"""What everything stands on: paths, levels, noise, models, starts."""
