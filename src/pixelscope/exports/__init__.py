"""Trained models as files for other programs: metadata, model card, ONNX and safetensors."""
