"""A recipe and what is varied in it -> a Study of trials."""
