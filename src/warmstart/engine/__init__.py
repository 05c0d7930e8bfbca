"""Engine: shared tensor code."""
