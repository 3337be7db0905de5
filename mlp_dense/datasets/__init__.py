"""Embedded data sets, and the image formats that are read."""

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
"""Suffixes of image files in lower case."""
