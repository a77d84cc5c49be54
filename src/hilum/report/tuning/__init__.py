"""The page of tuning."""
