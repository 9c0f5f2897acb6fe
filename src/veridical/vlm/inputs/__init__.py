"""Turn images and messages into a model's input tensors, and batch them."""
