"""What is asked: targets, loss, metrics, decoding."""
