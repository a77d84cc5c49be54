"""Finished runs that answer one question -> a Comparison of their models."""
