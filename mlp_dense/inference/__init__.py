"""Trained models in Python and on the command line: loading and prediction."""
