"""A bundle and images -> probabilities, decisions, notices, embeddings and maps; nothing here needs a framework."""
