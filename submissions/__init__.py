"""Challenge JSON out: the writer, the checker and the named ensembles."""
