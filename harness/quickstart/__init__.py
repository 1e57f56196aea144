"""The whole job on rendered data: one call that runs it, one that says what came out."""
