"""Image classification with mmengine's Runner: data, and the model with its schedule and metrics. It needs timm."""
