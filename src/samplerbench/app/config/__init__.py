"""From yaml files to objects."""
