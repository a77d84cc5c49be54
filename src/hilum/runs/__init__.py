"""A folder of runs -> what became of each, and in what their recipes differ."""
