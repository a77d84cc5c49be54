"""A bundle, or anybody's predictions, and labelled images -> an Evaluation."""
