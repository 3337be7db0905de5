"""Export of trained models to ONNX and torch.export, with a check of every file."""
