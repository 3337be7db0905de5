"""Training and testing with mmengine: Runner, loops, hooks and the data order."""
