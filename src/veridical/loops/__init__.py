"""Where pairs come from during training: loops that build and align in turn, by rounds or by steps."""
