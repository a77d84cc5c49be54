"""The page of exploration."""
