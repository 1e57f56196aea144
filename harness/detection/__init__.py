"""Photos to boxes: the five detectors, their training, and box fusion."""
