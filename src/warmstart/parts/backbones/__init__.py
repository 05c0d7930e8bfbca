"""Where pre-trained bodies come from."""
