"""The edge: HTTP application, documented names, request and response models."""
