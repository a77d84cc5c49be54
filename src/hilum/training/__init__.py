"""From a recipe and a table to a run with a sealed bundle."""
