"""Which models, with which weights: thousands of ensembles judged on lists of candidates instead of searches."""
