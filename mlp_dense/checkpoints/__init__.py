"""Checkpoints: safe reading, matching with backbones, inspection, publishing and atomic writing."""
