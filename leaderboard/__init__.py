"""Scored rows: the store, the published numbers and the pages."""
