"""Rankings to numbers: the official retrieval score and box AP."""
