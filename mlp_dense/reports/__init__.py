"""Reports of tests and comparisons: pages with errors by class, image and kind."""
