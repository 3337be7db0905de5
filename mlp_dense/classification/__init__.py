"""Image classification with mmengine's Runner: data, model, schedule and metrics. It needs timm."""
