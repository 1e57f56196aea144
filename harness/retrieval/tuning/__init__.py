"""Optuna in place of the paper's AutoML: studies of the multi-similarity loss, by several workers, and their plots."""
