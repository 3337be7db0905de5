"""Configs: reading, scaling and checking them."""
