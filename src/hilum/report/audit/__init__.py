"""The page of audit."""
