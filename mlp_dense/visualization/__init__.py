"""Drawings of labels on images, and learning curves."""
