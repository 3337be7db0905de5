"""Checks of data, annotations and models, before and during a run."""
